"""Embedding look-up on the CPU, whose gradient is a sum over sorted ids."""

import torch
from torch import Tensor

from recsys.kernels.embedding.cpu_segments import segment_sum, sort_ids
from recsys.kernels.embedding.gather import lay_out, look_up

__all__ = ["lookup", "merge_rows", "table_gradient"]


def lookup(table: Tensor, ids: Tensor, sparse: bool) -> Tensor:
    """Rows of the table for ids (M,), or sums of rows for ids (M, k)."""
    return look_up(table, ids, sparse, table_gradient)


def merge_rows(gradient: Tensor) -> Tensor:
    """Add up the rows that a sparse gradient holds for the same id."""
    return table_gradient(gradient, gradient._indices()[0], gradient._values().float(), True)


def table_gradient(
    table: Tensor,
    ids: Tensor,
    rows: Tensor,
    sparse: bool,
    *,
    per_row: int = 1,
    coefficients: Tensor | None = None,
    per_coefficient: int = 1,
) -> Tensor:
    """Add up gradient rows by id.

    Args:
        table: (R, d), whose gradient it is.
        ids: int64 in [0, R), in any shape: M events.
        rows: (M / per_row, d) float32; event e has row e // per_row.
        sparse: whether to give a coalesced sparse tensor, or zeros elsewhere.
        per_row: events that share a row.
        coefficients: M / per_coefficient float32 values in any shape that rows are multiplied by; event e
            has value e // per_coefficient. None for ones.
        per_coefficient: events that share a coefficient.

    Raises:
        ArgumentError: an id is out of range.
    """
    segments = sort_ids(ids.reshape(-1), table.shape[0])
    summed = segment_sum(
        segments, rows, per_row=per_row, coefficients=coefficients, per_coefficient=per_coefficient
    )
    return lay_out(table, torch.from_numpy(segments.ids), summed, sparse)
