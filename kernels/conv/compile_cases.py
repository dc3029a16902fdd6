"""The launches of the convolution that ship: types, widths, sizes and flags."""

import itertools

import torch

from recsys.kernels.conv import triton

__all__ = ["record_all"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CHANNELS = (64, 128, 256)
"""One for each bound of configs.json."""


def record_all() -> None:
    """Call the launchers once for each case; for use inside `record_launches`."""
    for dtype, channels in itertools.product(DTYPES, CHANNELS):
        _record(dtype, 4, channels)
    for dtype, width in itertools.product(DTYPES, (2, 3)):
        _record(dtype, width, CHANNELS[-1])
    for dtype, width in (*((dtype, 4) for dtype in DTYPES), (torch.float32, 2), (torch.float32, 3)):
        _record(dtype, width, CHANNELS[-1], stated=True)
    for gated, biased in ((True, False), (False, True), (False, False)):
        _record(torch.bfloat16, 4, CHANNELS[-1], gated=gated, biased=biased)


def _record(
    dtype: torch.dtype,
    width: int,
    channels: int,
    *,
    gated: bool = True,
    biased: bool = True,
    stated: bool = False,
) -> None:
    offsets = torch.tensor([0, 2, 2], dtype=torch.int32)
    x = torch.zeros(2, 2 * channels, dtype=dtype)[:, :channels]  # half of a projection
    weight, bias = torch.zeros(channels, width), torch.zeros(channels) if biased else None
    state = torch.zeros(2, channels, width - 1) if stated else None
    positions, sequences = triton.find_positions(offsets, 2)
    inputs = (x, weight, bias, offsets, positions, sequences if stated else None, gated, state)
    y, _ = triton.forward(*inputs, stated)
    triton.backward(y, state, *inputs)
