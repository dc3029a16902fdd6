"""What the compiled sums by bags share: the gradient, made of the same sums along the transposed form."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.kernels.bags.layout import Transposed, transpose

__all__ = ["Sums", "differentiable"]

Sums = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""A backend's forward pass: table, int64 offsets, int32 rows, float32 weights; (M, d), dtype of the table."""


def differentiable(
    sums: Sums,
    table: Tensor,
    offsets: Tensor,
    rows: Tensor,
    weights: Tensor | None,
    transposed: Transposed | None,
) -> Tensor:
    """`sums`, differentiable in the table."""
    found: Tensor = _Bags.apply(sums, table, offsets.long(), rows.int(), weights, transposed)  # type: ignore[no-untyped-call]
    return found


class _Bags(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sums: Sums,
        table: Tensor,
        offsets: Tensor,
        rows: Tensor,
        weights: Tensor | None,
        transposed: Transposed | None,
    ) -> Tensor:
        ctx.save_for_backward(offsets, rows, weights)
        ctx.sums, ctx.transposed, ctx.n_rows, ctx.dtype = sums, transposed, table.shape[0], table.dtype
        return sums(table, offsets, rows, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        by_row = ctx.transposed
        if by_row is None:
            offsets, rows, weights = ctx.saved_tensors
            by_row = transpose(offsets, rows, weights, ctx.n_rows)
        parts = ctx.sums(upstream.float().contiguous(), by_row.piece_offsets, by_row.bags, by_row.weights)
        pieces = torch.arange(len(parts), dtype=torch.int32, device=parts.device)
        gradient = ctx.sums(parts, by_row.row_offsets, pieces, None)
        return None, gradient.to(ctx.dtype), None, None, None, None
