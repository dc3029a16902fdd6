"""The causal convolution on the CPU: numba kernels registered with PyTorch.

All tensors are float32 here; rows may have any stride, so that half of a projection needs no copy.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.kernels.conv.call import ConvCall
from recsys.kernels.conv.cpu_backward import BACKWARD_SCRATCH, backward_worker
from recsys.kernels.conv.cpu_forward import FORWARD_SCRATCH, forward_worker
from recsys.kernels.conv.cpu_rows import BLOCK_D
from recsys.kernels.shared.arguments import check_offsets_values
from recsys.kernels.shared.arrays import add_up, flat, rows
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector.channel_blocks import (
    group_sequences,
)

__all__ = ["causal_conv"]

GROUP = 1024
"""Events of a group of sequences."""

STEPS = 4
"""Elementary steps of `threads_for` per element."""


def causal_conv(call: ConvCall) -> tuple[Tensor, Tensor]:
    """Convolve in float32; the state is empty unless asked for."""
    c = call.widened()
    gated = c.activation == "silu"
    y, state = forward(c.x, c.weight, c.bias, c.offsets, gated, c.initial_state, c.return_state)
    return y.to(call.x.dtype), state


@cpu_operator("recsys::causal_conv_cpu")
def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    gated: bool,
    initial_state: Tensor | None,
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    """Return y and, if `return_state`, each sequence's last inputs."""
    events, channels = x.shape
    check_offsets_values("causal_conv", offsets, events)
    y, final = _outputs(x, weight, offsets, return_state)
    bounds, order = group_sequences(offsets.numpy(), GROUP)
    threads = threads_for(len(order) * -(-channels // BLOCK_D), STEPS * events * channels)
    launch(
        forward_worker,
        threads,
        bounds,
        order,
        *_inputs(x, weight, bias, offsets, gated, initial_state),
        torch.empty(threads * FORWARD_SCRATCH).numpy(),
        flat(y),
        flat(final),
    )
    return y, final


@forward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    gated: bool,
    initial_state: Tensor | None,
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    return _outputs(x, weight, offsets, return_state)


@cpu_operator("recsys::causal_conv_cpu_backward")
def backward(
    dy: Tensor,
    dfinal: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    gated: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and initial_state; empty where absent."""
    (events, channels), width = x.shape, weight.shape[1]
    dx, dweight, dbias, dinitial = _gradients(x, weight, bias, initial_state)
    bounds, order = group_sequences(offsets.numpy(), GROUP)
    part_weight, part_bias = torch.empty(len(order), channels, width), torch.empty(len(order), channels)
    threads = threads_for(len(order) * -(-channels // BLOCK_D), 2 * STEPS * events * channels)
    launch(
        backward_worker,
        threads,
        bounds,
        order,
        *_inputs(x, weight, bias, offsets, gated, initial_state),
        torch.empty(threads * BACKWARD_SCRATCH).numpy(),
        *rows(dy),
        flat(dfinal),
        *(flat(part) for part in (dx, dinitial, part_weight, part_bias)),
    )
    add_up(part_weight, dweight)
    if bias is not None:
        add_up(part_bias, dbias)
    return dx, dweight, dbias, dinitial


@backward.register_fake
def _(
    dy: Tensor,
    dfinal: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    gated: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _gradients(x, weight, bias, initial_state)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, offsets, gated, initial_state, with_state = inputs
    ctx.save_for_backward(x, weight, bias, offsets, initial_state)
    ctx.gated, ctx.with_state = gated, with_state
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, offsets, initial_state = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(x)
    if not ctx.with_state:
        dfinal = None
    dx, dweight, dbias, dinitial = backward(dy, dfinal, x, weight, bias, offsets, ctx.gated, initial_state)
    return (
        dx,
        dweight,
        None if bias is None else dbias,
        None,
        None,
        None if initial_state is None else dinitial,
        None,
    )


forward.register_autograd(_differentiate, setup_context=_save)


def _outputs(x: Tensor, weight: Tensor, offsets: Tensor, with_state: bool) -> tuple[Tensor, Tensor]:
    shape = (offsets.shape[0] - 1 if with_state else 0, x.shape[1], weight.shape[1] - 1)
    return x.new_empty(x.shape), x.new_empty(shape)


def _gradients(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dbias = x.new_empty(0 if bias is None else bias.shape)
    dinitial = x.new_empty(0 if initial_state is None else initial_state.shape)
    return x.new_empty(x.shape), x.new_empty(weight.shape), dbias, dinitial


def _inputs(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    gated: bool,
    initial_state: Tensor | None,
) -> tuple[Any, ...]:
    """Arrange what both workers read in the order of their arguments."""
    return (
        offsets.to(torch.int32).numpy(),
        *weight.shape,
        *rows(x),
        flat(weight),
        flat(bias),
        flat(initial_state),
        gated,
    )
