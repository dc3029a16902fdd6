"""The launches of ranking that ship: every configuration, and each option where it matters."""

import torch

from recsys.kernels.ranking import triton, triton_top_k_launch

__all__ = ["record_all"]


def record_all() -> None:
    """Make them on small CPU tensors, under `record_launches`; nothing is computed."""
    for width in (64, 320):
        _record(torch.float32, width, plain=False)
        _record(torch.bfloat16, width, plain=False)
    _record(torch.float32, 128, plain=True)
    for width in (128, 256):
        _record(torch.bfloat16, width, plain=True)
    _record(torch.float16, 64, plain=True)


def _record(dtype: torch.dtype, width: int, *, plain: bool) -> None:
    """`plain`: without lists of items."""
    items = torch.zeros(700, width, dtype=dtype)
    everything = triton_top_k_launch.Catalog(None, None, 700)
    listed = triton_top_k_launch.Catalog(torch.arange(600), torch.arange(600), 600)
    for rows in (3, 40, 70):
        hidden, targets = torch.zeros(rows, width, dtype=dtype), torch.zeros(rows, dtype=torch.int64)
        exclude = torch.tensor([5, 9]), torch.tensor([0] + [2] * rows)
        for lists in (None,) if plain else (None, exclude):
            triton.count(hidden, items, targets, lists)
            for precision in triton_top_k_launch.precisions(dtype, 1, 1 << 20):
                catalog = everything if lists is None else listed
                triton_top_k_launch.select(hidden, items, 1, lists, catalog, precision)
