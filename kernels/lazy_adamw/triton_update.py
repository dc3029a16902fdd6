# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""AdamW on some rows of a table on the GPU: each element read and written once."""

import triton
import triton.language as tl

__all__ = ["update_kernel"]


@triton.jit(do_not_specialize=["U", "slices"])
def update_kernel(
    ids,
    weight,
    mean,
    square,
    gradient,
    U,
    D,
    slices,
    step_size,
    fresh1,
    beta2,
    fresh2,
    root,
    epsilon,
    keep,
    BLOCK_U: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Update a tile of `BLOCK_U` of the `U` rows in place; arguments as in `reference.update_rows`."""
    o_row = tl.program_id(0) // slices * BLOCK_U + tl.arange(0, BLOCK_U)
    o_column = tl.program_id(0) % slices * BLOCK_D + tl.arange(0, BLOCK_D)
    m_row = o_row < U
    mask = m_row[:, None] & (o_column < D)[None, :]
    to = tl.load(ids + o_row, mask=m_row, other=0)[:, None] * D + o_column[None, :]
    source = o_row.to(tl.int64)[:, None] * D + o_column[None, :]
    g = tl.load(gradient + source, mask=mask, other=0.0).to(tl.float32)
    m = tl.load(mean + to, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(square + to, mask=mask, other=0.0).to(tl.float32)
    w = tl.load(weight + to, mask=mask, other=0.0).to(tl.float32)
    m += fresh1 * (g - m)
    v = beta2 * v + fresh2 * g * g
    w = keep * w - step_size * m / (tl.sqrt(v) * root + epsilon)
    tl.store(mean + to, m.to(mean.dtype.element_ty), mask=mask)
    tl.store(square + to, v.to(square.dtype.element_ty), mask=mask)
    tl.store(weight + to, w.to(weight.dtype.element_ty), mask=mask)
