"""The launches of linear cross-entropy that ship: every configuration, and each option where it matters."""

import torch

from recsys.kernels.cross_entropy import triton

__all__ = ["record_all"]


def record_all() -> None:
    """Make them on small CPU tensors, under `record_launches`; nothing is computed."""
    for dtype in (torch.float32, torch.bfloat16):
        for width in (64, 128, 256, 320):
            _record(dtype, width, plain=True)
        for width in (64, 320):
            _record(dtype, width, plain=False)
    for width in (64, 256):
        _record(torch.float16, width, plain=True)


def _record(dtype: torch.dtype, width: int, *, plain: bool) -> None:
    hidden, items = torch.zeros(600, width, dtype=dtype), torch.zeros(700, width, dtype=dtype)
    targets, upstream = torch.zeros(600, dtype=torch.int64), torch.ones(600)
    bias = None if plain else torch.zeros(700, dtype=dtype)
    options = (0.0, 1.0, False) if plain else (0.1, 1.0, True)
    found = triton.row_losses(hidden, items, bias, targets, *options, True)
    rows = [600] if plain else [600, 100]  # in pieces, and in one
    for count in rows:
        part = slice(count)
        triton.summed_item_gradients(
            hidden[part], items, bias, targets[part], found[1][part], upstream[part], *options
        )
    if plain:
        triton.row_losses(hidden, items, bias, targets, *options, False)
        triton.summed_item_gradients(
            hidden[:100], items, bias, targets[:100], found[1][:100], upstream[:100], *options
        )
