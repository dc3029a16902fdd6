# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Sums of rows by bags on the GPU: a program adds a bag's rows, `BLOCK_T` at a time, a slice of columns.

The order of additions follows from the bag and the configuration, which knows the width alone.
Legend: M bags, T entries, C rows, D width.
"""

import triton
import triton.language as tl

__all__ = ["sum_kernel"]


@triton.jit(do_not_specialize=["slices"])
def sum_kernel(table, offsets, rows, weights, out, D, slices, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """Sum the rows of one bag.

    table (C, D) and out (M, D) of one type; offsets (M + 1,) int64; rows (T,) int32; weights (T,) float32
    or None.
    """
    bag = (tl.program_id(0) // slices).to(tl.int64)
    o_column = tl.program_id(0) % slices * BLOCK_D + tl.arange(0, BLOCK_D)
    m_column = o_column < D
    begin, end = tl.load(offsets + bag), tl.load(offsets + bag + 1)
    total = tl.zeros([BLOCK_D], tl.float32)
    for first in range(begin, end, BLOCK_T):
        entry = first + tl.arange(0, BLOCK_T)
        inside = entry < end
        row = tl.load(rows + entry, mask=inside, other=0).to(tl.int64)
        mask = inside[:, None] & m_column[None, :]
        tile = tl.load(table + row[:, None] * D + o_column[None, :], mask=mask, other=0.0).to(tl.float32)
        if weights is not None:
            tile = tile * tl.load(weights + entry, mask=inside, other=0.0)[:, None]
        total += tl.sum(tile, 0)
    tl.store(out + bag * D + o_column, total.to(out.dtype.element_ty), mask=m_column)
