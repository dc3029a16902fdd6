"""Linear layers by matrix tiles: float32 in and out, rounded to bfloat16 on the way into the products.

Legend: N rows, I inputs, O outputs; I and O are multiples of 32.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.linear import cpu_products
from recsys.kernels.shared.arrays import bits, flat
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector.tile_blocks import blocks, transposed_blocks
from recsys.kernels.shared.vector.tiles import BLOCK, tiles_available

_STEPS_PER_PRODUCT = 30
"""Multiply-adds in the time of one elementary step of `threads_for`: memory holds the tiles back."""


def require_tiles() -> None:
    """Refuse processors without matrix tiles, on which the loops cannot even be compiled.

    Raises:
        ArgumentError: there are none.
    """
    if not tiles_available():
        raise ArgumentError("narrow_products: this processor has no matrix tiles (AMX): leave it out")


class NarrowLinear(torch.autograd.Function):
    """x W^T + b, (N, O) float32, of (N, I), (O, I) and (O,) or None; N >= 1.

    An autograd function and no custom operation: a layer takes little more time than that would cost to call.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply; x and weight are kept for the gradients."""
        ctx.save_for_backward(x, weight)
        return _product(x, transposed_blocks(weight.bfloat16()), bias, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what wants one."""
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        d_x = None
        if for_x:
            d_x = _product(upstream, blocks(weight.bfloat16(), columns_first=True), None, x.shape[1])
        d_weight = _outer(upstream, x) if for_weight else None
        return d_x, d_weight, upstream.sum(0) if for_bias else None


# `apply` has no types.
narrow_linear = cast("Callable[[Tensor, Tensor, Tensor | None], Tensor]", NarrowLinear.apply)


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None, width: int) -> Tensor:
    """Multiply x (N, K) by a matrix (K, width) in blocks, columns first, and add the bias: (N, width)."""
    n, depth = x.shape
    y = x.new_empty(n, width)
    groups = -(-n // BLOCK)
    launch(
        cpu_products.product_worker,
        threads_for(groups, n * depth * width // _STEPS_PER_PRODUCT),
        n,
        flat(x),
        depth,
        bits(matrix),
        flat(x.new_empty(0) if bias is None else bias),
        width,
        flat(y),
    )
    return y


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Sum over rows of left (N, O) times right (N, I), (O, I)."""
    # The kernel wants one side transposed and rounded beforehand: the narrower one.
    swap = left.shape[1] > right.shape[1]
    if swap:
        left, right = right, left
    n, rows, columns = left.shape[0], left.shape[1], right.shape[1]
    spans = -(-n // BLOCK)
    turned = left.new_empty(rows * spans * BLOCK, dtype=torch.bfloat16)
    launch(
        cpu_products.transpose_worker,
        threads_for(spans, n * rows),
        n,
        flat(left),
        rows,
        bits(turned),
    )
    sums = left.new_empty(rows, columns)
    launch(
        cpu_products.outer_worker,
        threads_for(columns // BLOCK, n * rows * columns // _STEPS_PER_PRODUCT),
        n,
        bits(turned),
        rows,
        flat(right),
        columns,
        flat(sums),
    )
    return sums.t() if swap else sums
