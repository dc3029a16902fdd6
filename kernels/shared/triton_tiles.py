# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Tiles of matrices and of their products, for use inside Triton kernels that walk an item table.

A product takes rows of two row-major matrices of one width, a `DEPTH` of columns at a time. An inner product
is one chain over the columns, in the same order whatever else is in the tile, so that a row's products have
the same bits in any tile of the same shape.
"""

import triton
import triton.language as tl


@triton.jit
def load_tile(matrix, rows, inside, first, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Columns first .. first + COLUMNS - 1 of some rows of a (., WIDTH) matrix; zeros outside."""
    columns = first + tl.arange(0, COLUMNS)
    mask = inside[:, None]
    if WIDTH % COLUMNS != 0:
        mask = mask & (columns < WIDTH)[None, :]
    return tl.load(matrix + rows.to(tl.int64)[:, None] * WIDTH + columns[None, :], mask=mask, other=0.0)


@triton.jit
def products(
    left,
    left_rows,
    left_inside,
    right,
    right_rows,
    right_inside,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """(LEFT, RIGHT) float32 inner products of rows of two matrices, read `DEPTH` columns at a time."""
    sums = tl.zeros((LEFT, RIGHT), tl.float32)
    for first in range(0, WIDTH, DEPTH):
        a = load_tile(left, left_rows, left_inside, first, WIDTH, DEPTH)
        b = load_tile(right, right_rows, right_inside, first, WIDTH, DEPTH)
        sums = tl.dot(a, tl.trans(b), sums, input_precision="ieee")
    return sums
