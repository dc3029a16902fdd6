"""What the compiled look-ups share: the forward pass, and how a gradient of few rows is laid out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["gather", "lay_out", "look_up"]


def lay_out(table: Tensor, ids: Tensor, rows: Tensor, sparse: bool) -> Tensor:
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


def gather(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of the table for ids (M,), or sums of rows for ids (M, k); no gradient."""
    if ids.dim() == 1:
        return table.index_select(0, ids)
    out = table.index_select(0, ids[:, 0])
    for column in range(1, ids.shape[1]):
        out += table.index_select(0, ids[:, column])
    return out


def look_up(table: Tensor, ids: Tensor, sparse: bool, gradient: Callable[..., Tensor]) -> Tensor:
    """`gather`, differentiable by a backend's `table_gradient`."""
    found: Tensor = _Lookup.apply(table, ids, sparse, gradient)  # type: ignore[no-untyped-call]
    return found


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, table: Tensor, ids: Tensor, sparse: bool, gradient: Callable[..., Tensor]
    ) -> Tensor:
        ctx.save_for_backward(table, ids)
        ctx.sparse, ctx.gradient = sparse, gradient
        return gather(table, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        table, ids = ctx.saved_tensors
        per_row = 1 if ids.dim() == 1 else ids.shape[1]
        return ctx.gradient(table, ids, upstream.float(), ctx.sparse, per_row=per_row), None, None, None
