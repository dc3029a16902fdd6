# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The mask of `mask.keep_mask` inside the GPU's kernels, and the tile of rows and columns of a program."""

import triton
import triton.language as tl

from recsys.kernels.pointwise.mask import COLUMN_STEP, MIX_FIRST, MIX_SECOND
from recsys.kernels.shared.random_words import ATTEMPT_STEP, ROW_STEP, signed
from recsys.kernels.shared.triton_random_words import mix

__all__ = ["keep_factor", "tile_of"]

_ATTEMPT = tl.constexpr(signed(ATTEMPT_STEP))
_ROW = tl.constexpr(signed(ROW_STEP))
_COLUMN = tl.constexpr(COLUMN_STEP)
_MIX_FIRST = tl.constexpr(MIX_FIRST)
_MIX_SECOND = tl.constexpr(MIX_SECOND)


@triton.jit
def tile_of(rows, D, slices, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows (BLOCK_N,) int64 and columns (BLOCK_D,) of a program, and which of its tile exist."""
    row = (tl.program_id(0) // slices).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.program_id(0) % slices * BLOCK_D + tl.arange(0, BLOCK_D)
    return row, column, (row < rows)[:, None] & (column < D)[None, :]


@triton.jit
def keep_factor(seed, row, column, threshold, factor):
    """Tile of `factor` where an element is kept and 0 elsewhere; all ones without a seed.

    seed: pointer to an int64, or None; threshold: int32 with the bits of `mask.keep_threshold`.
    """
    if seed is None:
        return 1.0
    else:
        key = mix(row * _ROW + mix(tl.load(seed) + _ATTEMPT))
        word = key.to(tl.uint32)[:, None] + (column.to(tl.uint32) * _COLUMN)[None, :]
        word = (word ^ (word >> 16)) * _MIX_FIRST
        word = word ^ (key >> 32).to(tl.uint32)[:, None]
        word = (word ^ (word >> 15)) * _MIX_SECOND
        return tl.where(word >= threshold.to(tl.uint32, bitcast=True), factor, 0.0)
