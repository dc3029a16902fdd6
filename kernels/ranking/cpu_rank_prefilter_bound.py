"""Rows and items rounded to bfloat16 for the matrix tiles, and how far a product of them can be off.

Let h be a row and w an item of K elements (zeros included), h' and w' their bfloat16 forms, |.| Euclidean
norms. The prefilter sums h'w' in tiles; ranks are defined by float32 chains of multiply-adds. By
Cauchy-Schwarz

    |h'w' - hw| <= |h - h'| |w| + |h'| |w - w'|,

a chain is within K 2^-24 / (1 - K 2^-24) |h| |w| of hw, and a sum in tiles, of exact products in any order
with at most 2 K roundings each within 2^-23 (the unit rounds to nearest; half of this would do), is within
2 K 2^-23 / (1 - 2 K 2^-23) |h'| |w'| of h'w'. The unit takes subnormal numbers for zero: a product or sum
loses at most 2^-126, an element that much times its partner. With H and W not below |h| + |h - h'| and
|w| + |w - w'|, A and E not below |h - h'| and |w - w'|, the two scores differ by at most

    A W + H E + K 2^-21 H W + K 2^-124 (1 + H + W).

`error_bound` adds what its own float32 arithmetic may lose.
"""

import math

import numpy as np

from recsys.kernels.shared.vector import LANES, Array, Number, compiled, fma, load, splat, subtract, sum_lanes
from recsys.kernels.shared.vector.tiles import narrowed, store_narrow

WIDEST = 4096
"""Largest K for which the constants' spare covers the terms of second order."""

_ZERO = np.float32(0.0)
_SPARE = 1.0 + 2.0**-10  # above what float32 sums of at most `WIDEST` squares in 16 lanes lose
_SQUARE_LOST = 2.0**-126  # what a square that underflows loses
_INFINITE = np.float32(np.inf)


@compiled
def round_row(
    rounded: Array, to: Number, values: Array, at: Number, width: Number, depth: Number,
    line: Array, norms: Array, place: Number
) -> None:  # fmt: skip
    """Write values[at : at + width], rounded, and zeros up to `depth` elements to rounded[to:].

    norms[place] and norms[place + 1] become H and A; a norm that is not finite is infinite, never NaN.
    `depth` is a multiple of LANES, `line` (LANES,) scratch.
    """
    squares = splat(_ZERO)
    lost = splat(_ZERO)
    for d in range(0, depth, LANES):
        if d + LANES <= width:
            value = load(values, at + d)
        else:
            for lane in range(LANES):
                line[lane] = values[at + d + lane] if d + lane < width else _ZERO
            value = load(line, 0)
        rest = subtract(value, narrowed(value))
        squares = fma(value, value, squares)
        lost = fma(rest, rest, lost)
        store_narrow(rounded, to + d, value)
    short = math.sqrt(np.float64(sum_lanes(lost)) * _SPARE + depth * _SQUARE_LOST) * _SPARE
    whole = math.sqrt(np.float64(sum_lanes(squares)) * _SPARE + depth * _SQUARE_LOST) * _SPARE + short
    fits = whole < np.inf and short < np.inf
    norms[place] = np.float32(whole) if fits else _INFINITE
    norms[place + 1] = np.float32(short) if fits else _INFINITE


@compiled
def error_bound(
    row_norm: Number, row_lost: Number, item_norm: Number, item_lost: Number, depth: Number, threshold: Number
) -> Number:
    """Return how far above or below `threshold` a prefiltered score must lie to be sure of its side, float32.

    The last term covers the rounding of threshold plus margin and threshold minus margin.
    """
    tiny = np.float32(depth) * np.float32(2.0**-124)
    relative = np.float32(depth) * np.float32(2.0**-21)
    bound = row_lost * item_norm + row_norm * (item_lost + relative * item_norm)
    bound += tiny * (np.float32(1.0) + row_norm + item_norm)
    return bound * np.float32(1.0 + 2.0**-12) + abs(threshold) * np.float32(2.0**-22)
