"""A prefilter with an error bound: in the order of memory, can any of LANES items pass a row's threshold?

One or two rows are bound by reading the items, and the exact chain of products would need them turned: more
work than the reading, in an order that the processor does not read ahead. Any other order of summing gives
other last bits, but cannot stray far: with n = width and u = 2^-24 both sums lie within n u |h| |w| of the
truth. So the prefilter sums as it reads, and only what comes within that margin of the threshold is scored
exactly.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.ranking.cpu_top_k_llvm import any_lane
from recsys.kernels.shared.vector import LANES, Array, Number, compiled, fma, load, splat, store
from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import (
    INT_VECTOR,
    LANES_TYPE,
    VECTOR,
    constant,
    element_pointer,
    load_vector,
    prefetch,
    spread,
)

_WORD = ir.IntType(64)
_TINY = 1.2e-38
"""More than products lose where they are too small to be rounded relatively."""

_HUGE = 1e18
"""Rows of this length and items with elements of this size are not prefiltered: their sums could overflow."""

_AHEAD = 2048
"""Elements between what is read and what is asked of memory: 8 KiB, well within the first cache."""

_ZERO = np.float32(0.0)


def _shuffle(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(INT_VECTOR, places))


def fold(builder: Any, vectors: list[Any]) -> Any:
    """Emit the sums of LANES vectors as the lanes of one, by halving what each vector still has to add."""
    quads = range(0, LANES, 4)
    low = [x for q in quads for x in (q, q + LANES, q + 1, q + 1 + LANES)]
    high = [x for q in quads for x in (q + 2, q + 2 + LANES, q + 3, q + 3 + LANES)]
    low_pair = [x for q in quads for x in (q, q + 1, q + LANES, q + 1 + LANES)]
    high_pair = [x for q in quads for x in (q + 2, q + 3, q + 2 + LANES, q + 3 + LANES)]
    even = [4 * q + x for q in range(0, 2 * LANES // 4, 2) for x in range(4)]
    odd = [x + 4 for x in even]
    stages = [(low, high), (low_pair, high_pair)]
    while len(vectors) > 1:
        first, second = stages.pop(0) if stages else (even, odd)
        vectors = [
            builder.fadd(_shuffle(builder, a, b, first), _shuffle(builder, a, b, second))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


@intrinsic
def _larger_magnitude(typing_context: Any, a: Any, b: Any) -> Any:
    """Take the larger of a, not negative, and |b|, lane by lane; NaN is the largest of all."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = (builder.bitcast(x, INT_VECTOR) for x in args)
        b = builder.and_(b, ir.Constant(INT_VECTOR, [0x7FFFFFFF] * LANES))
        return builder.bitcast(builder.select(builder.icmp_signed("<", a, b), b, a), VECTOR)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), emit


@intrinsic
def ask_ahead(typing_context: Any, array: Any, position: Any) -> Any:
    """Hint that the line of array[position], which may lie beyond its end, will be read."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        prefetch(builder, element_pointer(context, builder, signature.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


@intrinsic
def _any_near(typing_context: Any, sums: Any, largest: Any, thresholds: Any, at: Any, reach: Any) -> Any:
    """Return 1 if one of LANES items, each with LANES partial sums, may be above thresholds[at]; else 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, largest, thresholds, at, reach = args
        first = element_pointer(context, builder, signature.args[0], sums, _WORD(0))
        rows = [load_vector(builder, builder.gep(first, [_WORD(i * LANES)])) for i in range(LANES)]
        scores = fold(builder, rows)
        half = LANES // 2
        while half:
            swapped = _shuffle(builder, largest, largest, [lane ^ half for lane in range(LANES)])
            # Unordered: NaN stays.
            largest = builder.select(builder.fcmp_unordered("<", largest, swapped), swapped, largest)
            half //= 2
        threshold = builder.load(element_pointer(context, builder, signature.args[2], thresholds, at))
        margin = builder.fadd(builder.fmul(largest, spread(builder, reach)), constant(_TINY))
        near = builder.fcmp_unordered(">", scores, builder.fsub(spread(builder, threshold), margin))
        near = builder.or_(near, builder.fcmp_unordered(">", largest, constant(_HUGE)))
        return builder.zext(any_lane(builder, near), _WORD)

    return types.int64(sums, LANES_TYPE, thresholds, types.int64, types.float32), emit


@compiled
def error_bound_of(rows: Array, width: Number) -> Number:
    """Bound how far a score can lie from its sum in another order, for items with elements up to 1.

    `rows` are all of them, at most as long as together. 2.1 and not 2, for the roundings of the bound itself.
    """
    squares = 0.0
    for place in range(len(rows)):
        squares += np.float64(rows[place]) * np.float64(rows[place])
    length = np.sqrt(squares)
    if not length < _HUGE:
        return np.float32(np.inf)
    return np.float32(2.1 * (width + LANES) * 2.0**-24 * length * np.sqrt(width))


@compiled
def prefilter(
    items: Array,
    at: Number,
    count: Number,
    width: Number,
    rows: Array,
    row: Number,
    thresholds: Array,
    own: Number,
    reach: Number,
    sums: Array,
) -> Number:
    """Return 0 where no score of LANES items is above thresholds[own] and all are sure to be finite, else 1.

    `items` are read from `at`, up to LANES - 1 elements beyond the last item. `count` is LANES, but unknown
    to the compiler: unrolled, the loads would not look like one stream to the processor, which then reads
    ahead at half the speed. The row begins at rows[row], with zeros behind it up to a multiple of LANES, for
    what lies behind an item. `reach` is the margin for items whose largest element is 1; infinite to rule out
    nothing. `sums` is scratch for LANES vectors.
    """
    largest = splat(_ZERO)
    for item in range(count):
        sum_ = splat(_ZERO)
        for d in range(0, width, LANES):
            ask_ahead(items, at + item * width + d + _AHEAD)
            value = load(items, at + item * width + d)
            sum_ = fma(value, load(rows, row + d), sum_)
            largest = _larger_magnitude(largest, value)
        store(sums, item * LANES, sum_)
    return _any_near(sums, largest, thresholds, own, reach)
