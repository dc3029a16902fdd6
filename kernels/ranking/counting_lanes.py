"""Counting comparisons: on SIMD vectors, as float32 lanes that are exact up to 2^24, and in words of bits."""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.shared.vector import LANES, Array, Number, compiled, fma, load, splat, store, sum_lanes
from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import LANES_TYPE, constant


def _counter(relation: str) -> Callable[[Any, Any, Any, Any], Any]:
    def count(typing_context: Any, counter: Any, a: Any, b: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            holds = builder.fcmp_ordered(relation, args[1], args[2])
            return builder.fadd(args[0], builder.select(holds, constant(1.0), constant(0.0)))

        return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), emit

    return count


count_above = intrinsic(_counter(">"))
"""(counter, a, b): add 1 to the lanes of `counter` where a > b."""

count_level = intrinsic(_counter("=="))
"""(counter, a, b): add 1 to the lanes of `counter` where a == b."""


def _marked_counter(relation: str) -> Callable[[Any, Any, Any, Any, Any], Any]:
    def count(typing_context: Any, counter: Any, a: Any, b: Any, marks: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            chosen = builder.bitcast(
                builder.trunc(args[3], ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES)
            )
            holds = builder.and_(chosen, builder.fcmp_ordered(relation, args[1], args[2]))
            return builder.fadd(args[0], builder.select(holds, constant(1.0), constant(0.0)))

        return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE, types.int64), emit

    return count


count_marked_above = intrinsic(_marked_counter(">"))
"""(counter, a, b, marks): add 1 to the lanes l of `counter` where a > b and bit l of int64 `marks` is set."""

count_marked_level = intrinsic(_marked_counter("=="))
"""(counter, a, b, marks): the same where a == b."""


@intrinsic
def count_bits(typing_context: Any, mask: Any) -> Any:
    """Count the set bits of an int64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), emit


@compiled
def count_tile(tile: Array, size: Number, lanes: Number, sides: Array, marks: Array, at: Number) -> Number:
    """Count the scores above and level with each lane's bar in a tile of `size` items x `lanes`.

    `sides` is (5, lanes) float32: the bars, and where to write: above, level, marked and above, marked and
    level. The last two are written where `marks` is not empty: bit l of marks[at + item] (int32) is that of
    lane l. The result is 0 while all scores are finite.
    """
    fault = splat(np.float32(0.0))
    for lane in range(0, lanes, LANES):
        limit = load(sides, lane)
        higher = splat(np.float32(0.0))
        equal = splat(np.float32(0.0))
        if len(marks) == 0:
            for item in range(size):
                score = load(tile, item * lanes + lane)
                higher = count_above(higher, score, limit)
                equal = count_level(equal, score, limit)
                fault = fma(score, splat(np.float32(0.0)), fault)  # stays 0 while scores are finite
        else:
            marked_higher = splat(np.float32(0.0))
            marked_equal = splat(np.float32(0.0))
            for item in range(size):
                score = load(tile, item * lanes + lane)
                mark = np.int64(marks[at + item]) >> lane
                higher = count_above(higher, score, limit)
                equal = count_level(equal, score, limit)
                marked_higher = count_marked_above(marked_higher, score, limit, mark)
                marked_equal = count_marked_level(marked_equal, score, limit, mark)
                fault = fma(score, splat(np.float32(0.0)), fault)
            store(sides, 3 * lanes + lane, marked_higher)
            store(sides, 4 * lanes + lane, marked_equal)
        store(sides, lanes + lane, higher)
        store(sides, 2 * lanes + lane, equal)
    return sum_lanes(fault)
