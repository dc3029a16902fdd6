"""Embedding look-up on the CPU, whose gradient is a sum over sorted ids."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.kernels.embedding.segments import segment_sum, sort_ids

__all__ = ["lookup", "table_gradient"]


def lookup(table: Tensor, ids: Tensor, sparse: bool) -> Tensor:
    """Rows of the table for ids (M,), or sums of rows for ids (M, k)."""
    found: Tensor = _Lookup.apply(table, ids, sparse)  # type: ignore[no-untyped-call]
    return found


def table_gradient(table: Tensor, ids: Tensor, rows: Tensor, sparse: bool) -> Tensor:
    """Lay summed gradient rows out as a gradient of the whole table.

    Args:
        table: (R, d).
        ids: (U,) int64, distinct and ascending.
        rows: (U, d) float32.
        sparse: whether to give a coalesced sparse tensor, or zeros elsewhere.
    """
    rows = rows.to(table.dtype)
    if sparse:
        return torch.sparse_coo_tensor(
            ids[None], rows, table.shape, is_coalesced=True, check_invariants=False
        )
    return torch.zeros_like(table).index_copy_(0, ids, rows)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(table, ids)
        ctx.sparse = sparse
        if ids.dim() == 1:
            return table.index_select(0, ids)
        out = table.index_select(0, ids[:, 0])
        for column in range(1, ids.shape[1]):
            out += table.index_select(0, ids[:, column])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        table, ids = ctx.saved_tensors
        segments = sort_ids(ids.reshape(-1), table.shape[0])
        per_row = 1 if ids.dim() == 1 else ids.shape[1]
        rows = segment_sum(segments, upstream.float(), per_row=per_row)
        return table_gradient(table, torch.from_numpy(segments.ids), rows, ctx.sparse), None, None
