# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""A projection's output taken apart into heads, the first parts rotated, on the GPU: one launch each way.

Legend: N rows, P parts, H heads, E width of a head.
"""

import triton
import triton.language as tl

from recsys.kernels.pointwise.triton_mask import tile_of

__all__ = ["PARTS", "rotate_kernel"]

PARTS = 4
"""Most parts."""


@triton.jit
def _turn(source, target, source_at, target_at, half, mask, cos, sin, TURNS: tl.constexpr):
    """Move the two halves of heads, (a, b) -> (a cos - b sin, a sin + b cos) where it TURNS."""
    a = tl.load(source + source_at, mask=mask, other=0.0)
    b = tl.load(source + source_at + half, mask=mask, other=0.0)
    if TURNS:
        first, second = a.to(tl.float32), b.to(tl.float32)
        a = (first * cos - second * sin).to(target.dtype.element_ty)
        b = (first * sin + second * cos).to(target.dtype.element_ty)
    tl.store(target + target_at, a, mask=mask)
    tl.store(target + target_at + half, b, mask=mask)


@triton.jit(do_not_specialize=["N", "slices"])
def rotate_kernel(
    whole,
    part_0,
    part_1,
    part_2,
    part_3,
    cos,
    sin,
    N,
    half,
    row_half,
    slices,
    COUNT: tl.constexpr,
    TURNED: tl.constexpr,
    BACK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Move whole (N, COUNT, H, E) into COUNT parts (N, H, E), or BACK by the opposite angles.

    A program takes BLOCK_N rows of BLOCK_D pairs of a head's halves; half = E / 2, row_half = H E / 2; cos
    and sin (N, E / 2). Parts beyond COUNT are None.
    """
    row, pair, mask = tile_of(N, row_half, slices, BLOCK_N, BLOCK_D)
    angle = row[:, None] * half + (pair % half)[None, :]
    c = tl.load(cos + angle, mask=mask, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=mask, other=0.0).to(tl.float32)
    if BACK:
        s = -s
    column = (pair // half * (2 * half) + pair % half)[None, :]
    in_part = row[:, None] * (2 * row_half) + column
    in_whole = row[:, None] * (COUNT * 2 * row_half) + column
    parts = (part_0, part_1, part_2, part_3)
    for i in tl.static_range(COUNT):
        there = in_whole + i * 2 * row_half
        if BACK:
            _turn(parts[i], whole, in_part, there, half, mask, c, s, i < TURNED)
        else:
            _turn(whole, parts[i], there, in_part, half, mask, c, s, i < TURNED)
