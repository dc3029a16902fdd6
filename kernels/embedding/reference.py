"""Embedding look-up in plain PyTorch: the definition, forward and backward."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["lookup", "merge_rows"]


def lookup(table: Tensor, ids: Tensor, sparse: bool) -> Tensor:
    """Rows of the table for ids (M,), or sums of rows for ids (M, k)."""
    rows = F.embedding(ids, table, sparse=sparse)
    return rows if ids.dim() == 1 else rows.sum(1)


def merge_rows(gradient: Tensor) -> Tensor:
    """Add up the rows that a sparse gradient holds for the same id."""
    return gradient.coalesce()
