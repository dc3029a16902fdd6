"""The causal depthwise convolution in plain PyTorch: the definition of what the compiled kernels compute.

Source: Gu and Dao 2023 (arXiv:2312.00752), figure 3 (the convolution before the scan), with the weight's
order of `torch.nn.Conv1d` and causal-conv1d: the last column multiplies the current event.
Legend: n events, b sequences, d channels, w width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.kernels.conv.call import ConvCall
from recsys.kernels.shared.arguments import check_offsets_values

__all__ = ["causal_conv", "causal_conv_step"]


def causal_conv(call: ConvCall) -> tuple[Tensor, Tensor]:
    """Return y (n, d) and the last w - 1 inputs (b, d, w - 1) of each sequence.

    Each sequence is laid behind its w - 1 earlier inputs (zeros without an initial state) in one long array;
    tap k of an event is then the row k places before it. Half precision is computed in float32.
    """
    if not call.x.is_cuda and not torch.compiler.is_compiling():
        check_offsets_values("causal_conv", call.offsets, call.x.shape[0])
    c = call.widened()
    x, weight, offsets, initial_state = c.x, c.weight, c.offsets, c.initial_state
    past = weight.shape[1] - 1
    lengths = offsets.long().diff()
    batch = len(lengths)
    if initial_state is None:
        initial_state = x.new_zeros(batch, x.shape[1], past)
    start = offsets[:-1].long() + past * torch.arange(batch, device=x.device)  # of the earlier inputs
    sequence = torch.repeat_interleave(torch.arange(batch, device=x.device), lengths)
    row = torch.arange(x.shape[0], device=x.device) + past * (sequence + 1)
    earlier = (start[:, None] + torch.arange(past, device=x.device)).reshape(-1)

    padded = x.new_zeros(x.shape[0] + past * batch, x.shape[1])
    padded = padded.index_copy(0, row, x)
    padded = padded.index_copy(0, earlier, initial_state.transpose(1, 2).reshape(batch * past, x.shape[1]))
    y = sum((weight[:, past - k] * padded[row - k] for k in range(past + 1)), padded.new_zeros(()))
    state = padded[(start + lengths)[:, None] + torch.arange(past, device=x.device)].transpose(1, 2)
    return _finish(y, c.bias, c.activation).to(call.x.dtype), state.contiguous()


def causal_conv_step(
    state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> tuple[Tensor, Tensor]:
    """Advance each of b states (b, d, w - 1) by one event x (b, d)."""
    window = torch.cat([state, x[..., None]], dim=-1)  # (b, d, w)
    return _finish((window * weight).sum(-1), bias, activation), window[..., 1:].contiguous()


def _finish(y: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    if bias is not None:
        y = y + bias
    return y if activation is None else F.silu(y)
