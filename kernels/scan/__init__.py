"""The selective scan of Mamba over a batch of sequences packed without padding.

Read `reference` first, then `call` (what every backend takes) and `cpu_states` with `cpu_forward`, or
`schedule` (the GPU's work list), `triton_steps` and `triton_forward`; the backward passes are beside them.

Shapes are lower-case in this folder because A, B, C and D are the paper's parameters.
Legend: N events, B sequences, d_inner channels, d_state states per channel.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recsys.kernels.scan import reference
from recsys.kernels.scan.call import ScanCall
from recsys.kernels.scan.checks import check_events, shapes_of
from recsys.kernels.scan.schedule import MOST_STATES, ScanSchedule
from recsys.kernels.shared.arguments import check_offsets, check_shape
from recsys.kernels.shared.backends import BackendTable

__all__ = ["ScanSchedule", "selective_scan", "selective_scan_step"]

Scan = Callable[[ScanCall], tuple[Tensor, Tensor]]
"""A backend: y in the dtype of `u`, and the final state, empty where the call returns none."""


def _cpu() -> Scan:
    from recsys.kernels.scan import cpu

    return cpu.selective_scan


def _triton() -> Scan:
    from recsys.kernels.scan import triton

    return triton.selective_scan


def _mamba_ssm() -> Scan:
    from recsys.kernels.scan import mamba_ssm

    return mamba_ssm.selective_scan


BACKENDS = BackendTable[Scan](
    "scan",
    {
        "reference": lambda: reference.selective_scan,
        "cpu": _cpu,
        "triton": _triton,
        "mamba-ssm": _mamba_ssm,
    },
)


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
    check_events(name, u, delta, A, B, C, D, z, delta_bias)
    offsets = check_offsets(name, offsets, u.device)
    if initial_state is not None:
        shape = (offsets.shape[0] - 1, *A.shape)
        like = shapes_of(offsets=offsets, A=A)
        check_shape(name, "initial_state", initial_state, "(B, d_inner, d_state)", shape, like)
    call = ScanCall(
        u, delta, A, B, C, D, z, delta_bias, offsets, delta_softplus, initial_state, return_state, schedule
    )
    chosen = BACKENDS.choose(backend, u)
    if chosen == "triton" and backend is None and A.shape[1] > MOST_STATES:
        chosen = "reference"
    y, state = BACKENDS.load(chosen)(call)
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
    check_events(name, u, delta, A, B, C, D, z, delta_bias)
    shape = (u.shape[0], *A.shape)
    check_shape(name, "state", state, "(B, d_inner, d_state)", shape, shapes_of(u=u, A=A))
    result_dtype = u.dtype
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    D, z, delta_bias = (None if x is None else x.to(dtype) for x in (D, z, delta_bias))
    y, new = reference.selective_scan_step(
        state.to(dtype), u, delta, A, B, C, D, z, delta_bias, delta_softplus
    )
    return y.to(result_dtype), new.to(state.dtype)
