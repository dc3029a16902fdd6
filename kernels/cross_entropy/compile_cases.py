"""The launches of linear cross-entropy that ship: every configuration, and each option where it matters."""

import torch

from recsys.kernels.cross_entropy import triton

__all__ = ["record_all"]


def record_all() -> None:
    """Make them on small CPU tensors, under `record_launches`; nothing is computed."""
    for dtype in (torch.float32, torch.bfloat16):
        for width in (64, 128, 256, 320):
            _record(dtype, width)
        _record(dtype, 64, gradient=False)
        for width in (64, 320):
            _record(dtype, width, plain=False)
    _record(torch.float16, 64)


def _record(dtype: torch.dtype, width: int, *, plain: bool = True, gradient: bool = True) -> None:
    hidden, items = torch.zeros(600, width, dtype=dtype), torch.zeros(700, width, dtype=dtype)
    targets, ones = torch.zeros(600, dtype=torch.int64), torch.ones(600)
    bias = None if plain else torch.zeros(700, dtype=dtype)
    smoothing, skip = (0.0, False) if plain else (0.1, True)
    triton.row_losses(hidden, items, bias, targets, smoothing, 1.0, skip, gradient)
    if gradient:
        for rows in (100,) if plain else (100, 600):  # in one piece, and in several
            triton.summed_item_gradients(
                hidden[:rows], items, bias, targets[:rows], ones[:rows], ones[:rows], smoothing, 1.0, skip
            )
