"""The launches of ranking that ship: every configuration, and each option where it matters."""

import torch

from recsys.kernels.ranking import triton

__all__ = ["record_all"]


def record_all() -> None:
    """Make them on small CPU tensors, under `record_launches`; nothing is computed."""
    for width in (64, 320):
        _record(torch.float32, width, plain=False)
        _record(torch.bfloat16, width, plain=False)
    for width in (128, 256):
        _record(torch.bfloat16, width, plain=True)
    _record(torch.float16, 64, plain=True)


def _record(dtype: torch.dtype, width: int, *, plain: bool) -> None:
    hidden, items = torch.zeros(3, width, dtype=dtype), torch.zeros(700, width, dtype=dtype)
    targets = torch.zeros(3, dtype=torch.int64)
    exclude = torch.tensor([5, 9]), torch.tensor([0, 1, 1, 2])
    candidates = torch.arange(600)
    for lists in (None,) if plain else (None, exclude):
        triton.count(hidden, items, targets, lists)
        triton.select(hidden, items, 1, lists, candidates=None if lists is None else candidates, deny=None)
    triton.select(hidden, items, 300, None, candidates=None, deny=None)
