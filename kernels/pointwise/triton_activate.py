# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""GELU and SwiGLU with dropout on the GPU, a pass forward and one backward.

Legend: N rows, F columns of the result; a row of SwiGLU's input holds F values, then F gates.
"""

import triton
import triton.language as tl

from recsys.kernels.pointwise import normal
from recsys.kernels.pointwise.triton_mask import keep_factor, tile_of
from recsys.kernels.shared.triton_math import LOG2_E, sigmoid

__all__ = ["activate_backward_kernel", "activate_kernel"]

_SLOWNESS = tl.constexpr(normal.SLOWNESS)
_DENSITY = tl.constexpr(normal.DENSITY)
_T1, _T2, _T3, _T4, _T5, _T6, _T7, _T8 = (tl.constexpr(x) for x in normal.TAIL)


@triton.jit
def _bell(x):
    """exp(-x^2 / 2)."""
    return tl.exp2(x * x * (-0.5 * LOG2_E))


@triton.jit
def _normal_share(x, height):
    """P(X < x) of a standard normal X, right in the left tail too; height = _bell(x)."""
    s = 1.0 / (1.0 + _SLOWNESS * tl.abs(x))
    series = _T8 * s + _T7
    series = series * s + _T6
    series = series * s + _T5
    series = series * s + _T4
    series = series * s + _T3
    series = series * s + _T2
    series = series * s + _T1
    tail = series * s * height
    return tl.where(x < 0, tail, 1.0 - tail)


@triton.jit(do_not_specialize=["N", "slices", "threshold"])
def activate_kernel(
    x, out, seed, N, F, slices, threshold, factor,
    SWIGLU: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Compute dropout(gelu(x)) of x (N, F), or dropout(value * silu(gate)) of (N, 2 F); out (N, F)."""
    row, column, mask = tile_of(N, F, slices, BLOCK_N, BLOCK_D)
    place = row[:, None] * F + column[None, :]
    if SWIGLU:
        there = row[:, None] * (2 * F) + column[None, :]
        gate = tl.load(x + there + F, mask=mask, other=0.0).to(tl.float32)
        result = tl.load(x + there, mask=mask, other=0.0).to(tl.float32) * (gate * sigmoid(gate))
    else:
        value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        result = value * _normal_share(value, _bell(value))
    result *= keep_factor(seed, row, column, threshold, factor)
    tl.store(out + place, result.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["N", "slices", "threshold"])
def activate_backward_kernel(
    grad, x, dx, seed, N, F, slices, threshold, factor,
    SWIGLU: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of x from that of the result."""
    row, column, mask = tile_of(N, F, slices, BLOCK_N, BLOCK_D)
    place = row[:, None] * F + column[None, :]
    above = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
    above *= keep_factor(seed, row, column, threshold, factor)
    if SWIGLU:
        there = row[:, None] * (2 * F) + column[None, :]
        value = tl.load(x + there, mask=mask, other=0.0).to(tl.float32)
        gate = tl.load(x + there + F, mask=mask, other=0.0).to(tl.float32)
        share = sigmoid(gate)
        slope = share + gate * share * (1.0 - share)
        tl.store(dx + there, (above * (gate * share)).to(dx.dtype.element_ty), mask=mask)
        tl.store(dx + there + F, (above * value * slope).to(dx.dtype.element_ty), mask=mask)
    else:
        value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        height = _bell(value)
        slope = _normal_share(value, height) + value * height * _DENSITY
        tl.store(dx + place, (above * slope).to(dx.dtype.element_ty), mask=mask)
