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


def _masked_counter(relation: str) -> Callable[[Any, Any, Any, Any, Any], Any]:
    def count(typing_context: Any, counter: Any, a: Any, b: Any, bits: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            chosen = builder.bitcast(
                builder.trunc(args[3], ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES)
            )
            holds = builder.and_(chosen, builder.fcmp_ordered(relation, args[1], args[2]))
            return builder.fadd(args[0], builder.select(holds, constant(1.0), constant(0.0)))

        return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE, types.int64), emit

    return count


count_excluded_above = intrinsic(_masked_counter(">"))
"""(counter, a, b, bits): add 1 to the lanes l of `counter` where a > b and bit l of int64 `bits` is set."""

count_excluded_level = intrinsic(_masked_counter("=="))
"""(counter, a, b, bits): the same where a == b."""


@intrinsic
def count_bits(typing_context: Any, mask: Any) -> Any:
    """Count the set bits of an int64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), emit


@compiled
def count_tile(
    tile: Array, size: Number, lanes: Number, sides: Array, excluded_bits: Array, at: Number
) -> Number:
    """Count the scores above and level with each lane's threshold in a tile of `size` items x `lanes`.

    `sides` is (5, lanes) float32: the thresholds, and where to write: above, level, above and excluded, level
    and excluded. The last two are written where `excluded_bits` is not empty: bit l of its word at + item, an
    int32, says that the item is excluded for lane l. The result is 0 while all scores are finite.
    """
    fault = splat(np.float32(0.0))
    for lane in range(0, lanes, LANES):
        limit = load(sides, lane)
        higher = splat(np.float32(0.0))
        equal = splat(np.float32(0.0))
        if len(excluded_bits) == 0:
            for item in range(size):
                score = load(tile, item * lanes + lane)
                higher = count_above(higher, score, limit)
                equal = count_level(equal, score, limit)
                fault = fma(score, splat(np.float32(0.0)), fault)  # stays 0 while scores are finite
        else:
            excluded_higher = splat(np.float32(0.0))
            excluded_equal = splat(np.float32(0.0))
            for item in range(size):
                score = load(tile, item * lanes + lane)
                mask = np.int64(excluded_bits[at + item]) >> lane
                higher = count_above(higher, score, limit)
                equal = count_level(equal, score, limit)
                excluded_higher = count_excluded_above(excluded_higher, score, limit, mask)
                excluded_equal = count_excluded_level(excluded_equal, score, limit, mask)
                fault = fma(score, splat(np.float32(0.0)), fault)
            store(sides, 3 * lanes + lane, excluded_higher)
            store(sides, 4 * lanes + lane, excluded_equal)
        store(sides, lanes + lane, higher)
        store(sides, 2 * lanes + lane, equal)
    return sum_lanes(fault)
