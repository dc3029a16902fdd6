# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Dropout with residual and gate on the GPU, a pass forward and one backward. Legend: N rows, D columns."""

import triton
import triton.language as tl

from recsys.kernels.pointwise.triton_mask import keep_factor, tile_of
from recsys.kernels.shared.triton_math import sigmoid

__all__ = ["drop_backward_kernel", "drop_kernel"]


@triton.jit(do_not_specialize=["N", "slices", "threshold"])
def drop_kernel(
    x, y, gate, out, seed, N, D, slices, threshold, factor, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Compute x + sigmoid(gate) * dropout(y), without the gate or x where they are None; all (N, D)."""
    row, column, mask = tile_of(N, D, slices, BLOCK_N, BLOCK_D)
    place = row[:, None] * D + column[None, :]
    total = tl.load(y + place, mask=mask, other=0.0).to(tl.float32)
    total *= keep_factor(seed, row, column, threshold, factor)
    if gate is not None:
        total *= sigmoid(tl.load(gate + place, mask=mask, other=0.0).to(tl.float32))
    if x is not None:
        total += tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["N", "slices", "threshold"])
def drop_backward_kernel(
    grad, y, gate, dy, dgate, seed, N, D, slices, threshold, factor,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of y and, if there is one, of the gate; y and dgate are None without it."""
    row, column, mask = tile_of(N, D, slices, BLOCK_N, BLOCK_D)
    place = row[:, None] * D + column[None, :]
    above = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
    above *= keep_factor(seed, row, column, threshold, factor)
    if gate is not None:
        share = sigmoid(tl.load(gate + place, mask=mask, other=0.0).to(tl.float32))
        value = tl.load(y + place, mask=mask, other=0.0).to(tl.float32)
        tl.store(dgate + place, (above * value * share * (1.0 - share)).to(dgate.dtype.element_ty), mask=mask)
        above *= share
    tl.store(dy + place, above.to(dy.dtype.element_ty), mask=mask)
