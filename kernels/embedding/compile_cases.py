"""The launches that ship, for compiling them without a GPU; see `launching.recording`."""

import torch

from recsys.kernels.embedding.triton import table_gradient

__all__ = ["record_all"]


def record_all() -> None:
    """Add up rows of each width, with and without coefficients."""
    ids = torch.zeros(64, dtype=torch.int64)
    for width in (16, 32, 64, 256):
        rows = torch.zeros(64, width)
        for coefficients in (None, torch.zeros(64)):
            table_gradient(rows, ids, rows, False, coefficients=coefficients)
