"""The selective scan of Mamba over a batch of sequences packed without padding.

Shapes are lower-case in this room because A, B, C and D are the paper's parameters.
Legend: N events, B sequences, d_inner channels, d_state states per channel.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.arguments import check_offsets, check_offsets_values, check_shape
from recsys.kernels.backend import choose_backend
from recsys.kernels.scan import reference
from recsys.kernels.scan.schedule import MOST_STATES, ScanSchedule

__all__ = ["ScanSchedule", "selective_scan", "selective_scan_step"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    offsets: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_state: bool = False,
    schedule: ScanSchedule | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective state-space recurrence over each sequence of a jagged batch.

    For the events t of a sequence, with dt = softplus(delta + delta_bias) and h[-1] the initial state:
    h[t] = exp(dt[t] A) h[t-1] + dt[t] u[t] B[t];  y[t] = (C[t] . h[t] + D u[t]) silu(z[t]).

    Args:
        u: (N, d_inner) float32, float64, bfloat16 or float16. Input.
        delta: (N, d_inner). Step size before bias and softplus.
        A: (d_inner, d_state) float32, < 0. Continuous-time decay.
        B: (N, d_state). Input projection of each event.
        C: (N, d_state). Output projection of each event.
        D: (d_inner,) or None. Weight of the input in the output.
        z: (N, d_inner) or None. Gate before SiLU.
        delta_bias: (d_inner,) or None. Added to delta before softplus.
        offsets: (B + 1,) int32, non-decreasing, first 0, last N. Empty sequences are allowed.
        delta_softplus: whether the step size is softplus(delta + delta_bias) or the sum itself.
        initial_state: (B, d_inner, d_state) float32, or None for zeros.
        return_state: whether to return the state after each sequence's last event too.
        schedule: work list of these offsets for the "triton" backend, which otherwise makes one: that waits
            for the device. The other backends need none.
        backend: "reference", "cpu", "triton", "mamba-ssm" or None to choose by device and dtype ("triton" for
            CUDA tensors up to a d_state of 64).

    Returns:
        y (N, d_inner) in the dtype of `u`; with `return_state` also the state (B, d_inner, d_state), float32
        (float64 where `u` is). An empty sequence's final state is its initial state. Differentiable in every
        floating argument, through both results.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.

    Cost: O(N d_inner d_state) time; beside its inputs and outputs "cpu" keeps one state every 16 events,
    "triton" one every 32; "mamba-ssm" pads to the longest sequence.
    Numerics: half precision is computed in float32. "cpu" and "triton" give a sequence the same bits, in y
    and in the gradients of u, delta, B, C, z and initial_state, whatever else is in the batch and however
    many threads run, and all gradients the same bits in every run.
    Source: Gu and Dao 2023 (arXiv:2312.00752), algorithm 2; the state resets at each sequence start.
    """
    name = "selective_scan"
    _check_events(name, u, delta, A, B, C, D, z, delta_bias)
    offsets = check_offsets(name, offsets, u.device)
    if initial_state is not None:
        shape = (offsets.shape[0] - 1, *A.shape)
        check_shape(
            name, "initial_state", initial_state, "(B, d_inner, d_state)", shape, _of(offsets=offsets, A=A)
        )
    chosen = choose_backend("scan", backend, u)
    if chosen == "triton" and backend is None and A.shape[1] > MOST_STATES:
        chosen = "reference"
    if chosen in ("triton", "mamba-ssm"):
        arguments = (
            u,
            delta,
            A,
            B,
            C,
            D,
            z,
            delta_bias,
            offsets,
            delta_softplus,
            initial_state,
            return_state,
        )
        y, state = _scan_on_gpu(chosen, arguments, schedule)
        return (y, state) if return_state else y
    if chosen == "reference" and not u.is_cuda and not torch.compiler.is_compiling():
        check_offsets_values(name, offsets, u.shape[0])

    result_dtype = u.dtype
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    D, z, delta_bias, initial_state = (
        None if x is None else x.to(dtype) for x in (D, z, delta_bias, initial_state)
    )
    if chosen == "cpu":
        from recsys.kernels.scan import cpu

        y, state = cpu.selective_scan(
            u, delta, A, B, C, D, z, delta_bias, offsets, delta_softplus, initial_state, return_state
        )
    else:
        y, state = reference.selective_scan(
            u, delta, A, B, C, D, z, delta_bias, offsets, delta_softplus, initial_state
        )
    y = y.to(result_dtype)
    return (y, state) if return_state else y


def selective_scan_step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = True,
) -> tuple[Tensor, Tensor]:
    """Advance the states of B users by one event each.

    Args:
        state: (B, d_inner, d_state) float32. States before the event; left as they are.
        u: (B, d_inner). Input; delta and z alike.
        delta: (B, d_inner). Step size before bias and softplus.
        A: (d_inner, d_state) float32, < 0.
        B: (B, d_state). Input projection; C alike.
        C: (B, d_state). Output projection.
        D: (d_inner,) or None.
        z: (B, d_inner) or None. Gate before SiLU.
        delta_bias: (d_inner,) or None.
        delta_softplus: as in `selective_scan`.

    Returns:
        y (B, d_inner) in the dtype of `u` and the new state (B, d_inner, d_state) in the dtype of `state`.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.
    """
    name = "selective_scan_step"
    _check_events(name, u, delta, A, B, C, D, z, delta_bias)
    shape = (u.shape[0], *A.shape)
    check_shape(name, "state", state, "(B, d_inner, d_state)", shape, _of(u=u, A=A))
    result_dtype = u.dtype
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    D, z, delta_bias = (None if x is None else x.to(dtype) for x in (D, z, delta_bias))
    y, new = reference.selective_scan_step(
        state.to(dtype), u, delta, A, B, C, D, z, delta_bias, delta_softplus
    )
    return y.to(result_dtype), new.to(state.dtype)


def _of(**tensors: Tensor) -> str:
    return " and ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())


def _check_events(
    name: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    for label, tensor, axes in (("u", u, "(N, d_inner)"), ("A", A, "(d_inner, d_state)")):
        if tensor.dim() != 2:
            raise ArgumentError(f"{name}: {label} has shape {tuple(tensor.shape)}, want {axes}")
        check_shape(name, label, tensor, axes, tuple(tensor.shape), "itself")
    events, channels = u.shape
    states = A.shape[1]
    check_shape(name, "A", A, "(d_inner, d_state)", (channels, states), _of(u=u))
    check_shape(name, "delta", delta, "(N, d_inner)", (events, channels), _of(u=u))
    check_shape(name, "B", B, "(N, d_state)", (events, states), _of(u=u, A=A))
    check_shape(name, "C", C, "(N, d_state)", (events, states), _of(u=u, A=A))
    check_shape(name, "D", D, "(d_inner,)", (channels,), _of(u=u))
    check_shape(name, "z", z, "(N, d_inner)", (events, channels), _of(u=u))
    check_shape(name, "delta_bias", delta_bias, "(d_inner,)", (channels,), _of(u=u))
    for label, other in (
        ("delta", delta),
        ("A", A),
        ("B", B),
        ("C", C),
        ("D", D),
        ("z", z),
        ("delta_bias", delta_bias),
    ):
        if other is not None and other.device != u.device:
            raise ArgumentError(f"{name}: {label} is on {other.device}, want {u.device} like u")


def _scan_on_gpu(
    chosen: str, arguments: tuple[Any, ...], schedule: ScanSchedule | None
) -> tuple[Tensor, Tensor]:
    """Call kernels that read every type and stride as it is."""
    if chosen == "mamba-ssm":
        from recsys.kernels.scan import mamba_ssm

        return mamba_ssm.selective_scan(*arguments)
    from recsys.kernels.scan import triton

    u, A, offsets = arguments[0], arguments[2], arguments[8]
    if A.shape[1] > MOST_STATES:
        raise ArgumentError(
            f"selective_scan: d_state is {A.shape[1]}, backend 'triton' takes up to {MOST_STATES}: "
            "use backend='reference'"
        )
    if schedule is None:
        schedule = ScanSchedule.from_offsets(offsets)
    wanted = (offsets.shape[0] - 1, u.shape[0])
    if (schedule.sequences, schedule.events) != wanted or schedule.pieces.device != u.device:
        raise ArgumentError(
            f"selective_scan: schedule is of {schedule.sequences} sequences and {schedule.events} events on "
            f"{schedule.pieces.device}, want {wanted[0]} and {wanted[1]} on {u.device}"
        )
    return triton.selective_scan(schedule, *arguments)
