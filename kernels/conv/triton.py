"""The causal convolution on a GPU: Triton kernels registered with PyTorch.

`x` and `dy` are taken as they are, in any type and with any distance between rows; weight, bias and states
are float32.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.kernels.conv import triton_backward, triton_forward
from recsys.kernels.conv.call import ConvCall
from recsys.kernels.shared.launching import Config, architecture, choose_config, launch

__all__ = ["causal_conv", "find_positions"]


def causal_conv(call: ConvCall) -> tuple[Tensor, Tensor]:
    """Convolve events of any type as they lie; the state is empty unless asked for."""
    c = call.widened(x=False)
    offsets = c.offsets.to(torch.int32).contiguous()
    positions, sequences = c.positions, None
    if positions is None or c.initial_state is not None or c.return_state:
        positions, sequences = find_positions(offsets, c.x.shape[0])
    positions = positions.to(torch.int32).contiguous()
    gated = c.activation == "silu"
    y, state = forward(
        c.x, c.weight, c.bias, offsets, positions, sequences, gated, c.initial_state, c.return_state
    )
    return y, state


@torch.library.custom_op("recsys::find_positions", mutates_args=(), device_types=("cuda", "cpu"))
def find_positions(offsets: Tensor, events: int) -> tuple[Tensor, Tensor]:
    """Return each event's index inside its sequence and its sequence's number, (events,) int32 both.

    The index is -1 for events beyond the last sequence. Reads `offsets` (B + 1,) int32 on its device.
    """
    sequences = offsets.shape[0] - 1
    positions, numbers = _positions(offsets, events)
    config = choose_config("conv", "positions", architecture(offsets))
    programs = -(-events // config.blocks["BLOCK_N"])
    halvings = sequences.bit_length()
    launch(
        triton_forward.positions_kernel,
        programs,
        config,
        offsets,
        positions,
        numbers,
        events,
        sequences,
        halvings,
    )
    return positions, numbers


@find_positions.register_fake
def _(offsets: Tensor, events: int) -> tuple[Tensor, Tensor]:
    return _positions(offsets, events)


@torch.library.custom_op("recsys::causal_conv_triton", mutates_args=(), device_types=("cuda", "cpu"))
def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    positions: Tensor,
    sequences: Tensor | None,
    gated: bool,
    initial_state: Tensor | None,
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    """Return y and, if `return_state`, each sequence's last inputs; `sequences` is read with a state only."""
    (events, channels), width = x.shape, weight.shape[1]
    y, state = _outputs(x, weight, offsets, return_state)
    x, weight, bias = _rows(x), weight.contiguous(), _contiguous(bias)
    initial_state = _contiguous(initial_state)
    config = _config("forward", x)
    launch(
        triton_forward.forward_kernel,
        _programs(config, "BLOCK_N", events, channels),
        config,
        *(x, weight, bias, positions, sequences, initial_state, y, events, channels, x.stride(0)),
        WIDTH=width,
        GATED=gated,
    )
    if return_state:
        config = _config("state", x)
        launch(
            triton_forward.final_state_kernel,
            _programs(config, "BLOCK_B", len(state), channels),
            config,
            *(x, offsets, initial_state, state, len(state), channels, x.stride(0)),
            WIDTH=width,
        )
    return y, state


@forward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    positions: Tensor,
    sequences: Tensor | None,
    gated: bool,
    initial_state: Tensor | None,
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    return _outputs(x, weight, offsets, return_state)


@torch.library.custom_op("recsys::causal_conv_triton_backward", mutates_args=(), device_types=("cuda", "cpu"))
def backward(
    dy: Tensor,
    dfinal: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    positions: Tensor,
    sequences: Tensor | None,
    gated: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and initial_state; empty where absent."""
    (events, channels), width = x.shape, weight.shape[1]
    dx, dweight, dbias, dinitial = _gradients(x, weight, bias, initial_state)
    x, dy, weight, bias = _rows(x), _rows(dy), weight.contiguous(), _contiguous(bias)
    initial_state, dfinal = _contiguous(initial_state), _contiguous(dfinal)
    stated = initial_state is not None or dfinal is not None
    config = _config("backward", x, stated=int(stated))
    lane = config.blocks["BLOCK_T"] - width + 1
    tiles = -(-events // (config.blocks["LANES"] * lane))
    parts = x.new_empty((tiles, width + 1, channels), dtype=torch.float32)
    launch(
        triton_backward.backward_kernel,
        tiles * -(-channels // config.blocks["BLOCK_D"]),
        config,
        *(x, weight, bias, positions, sequences, offsets, initial_state, dy, dfinal, dx, parts),
        *(events, channels, x.stride(0), dy.stride(0)),
        WIDTH=width,
        GATED=gated,
    )
    config = _config("add_parts", x)
    launch(
        triton_backward.add_parts_kernel,
        (width + (bias is not None)) * -(-channels // config.blocks["BLOCK_D"]),
        config,
        *(parts, dweight, None if bias is None else dbias, tiles, channels),
        WIDTH=width,
    )
    if initial_state is not None:
        config, sequence_count = _config("state", x), offsets.shape[0] - 1
        launch(
            triton_backward.initial_state_kernel,
            _programs(config, "BLOCK_B", sequence_count, channels),
            config,
            *(x, weight, bias, offsets, initial_state, dy, dfinal, dinitial),
            *(sequence_count, channels, x.stride(0), dy.stride(0)),
            WIDTH=width,
            GATED=gated,
        )
    return dx, dweight, dbias, dinitial


@backward.register_fake
def _(
    dy: Tensor,
    dfinal: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    positions: Tensor,
    sequences: Tensor | None,
    gated: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _gradients(x, weight, bias, initial_state)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, offsets, positions, sequences, gated, initial_state, with_state = inputs
    ctx.save_for_backward(x, weight, bias, offsets, positions, sequences, initial_state)
    ctx.gated, ctx.with_state = gated, with_state
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, offsets, positions, sequences, initial_state = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(x)
    if not ctx.with_state:
        dfinal = None
    dx, dweight, dbias, dinitial = backward(
        dy, dfinal, x, weight, bias, offsets, positions, sequences, ctx.gated, initial_state
    )
    bias_grad = None if bias is None else dbias
    initial_grad = None if initial_state is None else dinitial
    return dx, dweight, bias_grad, None, None, None, None, initial_grad, None


forward.register_autograd(_differentiate, setup_context=_save)


def _positions(offsets: Tensor, events: int) -> tuple[Tensor, Tensor]:
    return offsets.new_empty(events), offsets.new_empty(events)


def _outputs(x: Tensor, weight: Tensor, offsets: Tensor, with_state: bool) -> tuple[Tensor, Tensor]:
    shape = (offsets.shape[0] - 1 if with_state else 0, x.shape[1], weight.shape[1] - 1)
    return x.new_empty(x.shape), x.new_empty(shape, dtype=torch.float32)


def _gradients(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dbias = weight.new_empty(0 if bias is None else bias.shape)
    dinitial = weight.new_empty(0 if initial_state is None else initial_state.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), dbias, dinitial


def _config(kernel: str, x: Tensor, **sizes: int) -> Config:
    dtype = str(x.dtype).removeprefix("torch.")
    return choose_config("conv", kernel, architecture(x), dtype=dtype, channels=x.shape[1], **sizes)


def _programs(config: Config, rows: str, count: int, channels: int) -> int:
    return -(-count // config.blocks[rows]) * -(-channels // config.blocks["BLOCK_D"])


def _rows(x: Tensor) -> Tensor:
    """See to it that the channels of a row lie side by side; rows may lie anywhere."""
    return x if x.stride(1) == 1 else x.contiguous()


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
