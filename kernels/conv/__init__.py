"""The short causal convolution of Mamba over a batch of sequences packed without padding.

Read `reference` first, then `call` (what every backend takes) and `cpu_forward` with `cpu_rows`, or
`triton_forward`; the backward passes are beside them.

Legend: N events, B sequences, d channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recsys.kernels.conv import reference
from recsys.kernels.conv.call import ConvCall
from recsys.kernels.conv.checks import check_events, check_positions
from recsys.kernels.shared.arguments import check_offsets, check_shape
from recsys.kernels.shared.backends import BackendTable

__all__ = ["causal_conv", "causal_conv_step"]

Conv = Callable[[ConvCall], tuple[Tensor, Tensor]]
"""A backend: y in the dtype of `x`, and the last inputs, which the call may not return."""


def _cpu() -> Conv:
    from recsys.kernels.conv import cpu

    return cpu.causal_conv


def _triton() -> Conv:
    from recsys.kernels.conv import triton

    return triton.causal_conv


BACKENDS = BackendTable[Conv](
    "conv", {"reference": lambda: reference.causal_conv, "cpu": _cpu, "triton": _triton}
)


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    *,
    activation: str | None = "silu",
    initial_state: Tensor | None = None,
    return_state: bool = False,
    positions: Tensor | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve each channel of each sequence with its own short causal filter.

    For the events t of a sequence:  y[t] = silu(bias + sum over k of weight[:, width - 1 - k] x[t - k]),
    where x before the sequence's start is the initial state. Nothing is read across a boundary.

    Args:
        x: (N, d) float32, float64, bfloat16 or float16.
        weight: (d, width), width 2, 3 or 4; the last column multiplies the current event. `Conv1d`'s weight
            is (d, 1, width): give `weight[:, 0]`.
        bias: (d,) or None.
        offsets: (B + 1,) int32, non-decreasing, first 0, last N. Empty sequences are allowed.
        activation: "silu" or None.
        initial_state: (B, d, width - 1), the last inputs before each sequence, oldest first; None for zeros.
        return_state: whether to return each sequence's last inputs too.
        positions: (N,) integers, each event's index inside its sequence, so that several layers on a GPU
            need not find them from `offsets` each; None finds them. Must agree with `offsets`.
        backend: "reference", "cpu", "triton" or None to choose by device and dtype.

    Returns:
        y (N, d) in the dtype of `x`; with `return_state` also the last inputs (B, d, width - 1), float32
        (float64 where `x` is), to be given as `initial_state` of what follows. Differentiable in x, weight,
        bias and initial_state, through both results.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.

    Cost: O(N d width) time, nothing stored beside inputs and outputs.
    Numerics: half precision is computed in float32. "cpu" and "triton" give a sequence the same bits, in y
    and in the gradients of x and initial_state, whatever else is in the batch and however many threads run.
    Source: Gu and Dao 2023 (arXiv:2312.00752), figure 3; the conventions are causal-conv1d's.
    """
    name = "causal_conv"
    check_events(name, x, weight, bias, activation)
    offsets = check_offsets(name, offsets, x.device)
    if initial_state is not None:
        shape = (offsets.shape[0] - 1, x.shape[1], weight.shape[1] - 1)
        like = f"offsets {tuple(offsets.shape)} and weight {tuple(weight.shape)}"
        check_shape(name, "initial_state", initial_state, "(B, d, width - 1)", shape, like)
    if positions is not None:
        check_positions(name, positions, x)
    call = ConvCall(x, weight, bias, offsets, activation, initial_state, return_state, positions)
    y, state = BACKENDS.load(BACKENDS.choose(backend, x))(call)
    return (y, state) if return_state else y


def causal_conv_step(
    state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: str | None = "silu"
) -> tuple[Tensor, Tensor]:
    """Convolve one event of each of B users.

    Args:
        state: (B, d, width - 1). The last inputs before the event, oldest first; left as they are.
        x: (B, d). The event.
        weight: (d, width), as in `causal_conv`.
        bias: (d,) or None.
        activation: "silu" or None.

    Returns:
        y (B, d) in the dtype of `x` and the new state (B, d, width - 1) in the dtype of `state`.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.
    """
    name = "causal_conv_step"
    check_events(name, x, weight, bias, activation)
    shape = (x.shape[0], x.shape[1], weight.shape[1] - 1)
    like = f"x {tuple(x.shape)} and weight {tuple(weight.shape)}"
    check_shape(name, "state", state, "(B, d, width - 1)", shape, like)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    cast_bias = None if bias is None else bias.to(dtype)
    y, new = reference.causal_conv_step(state.to(dtype), x.to(dtype), weight.to(dtype), cast_bias, activation)
    return y.to(x.dtype), new.to(state.dtype)
