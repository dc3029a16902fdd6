"""Counting comparisons: on SIMD vectors, where counts are float32 lanes, exact up to 2^24, and in words of bits."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from recsys.kernels.vector import LANES, Array, Number, compiled, fma, load, splat, store, sum_lanes
from recsys.kernels.vector.compiling import intrinsic
from recsys.kernels.vector.lanes import LANES_TYPE, constant


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


@intrinsic
def count_bits(typing_context: Any, mask: Any) -> Any:
    """Count the set bits of an int64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), emit


@compiled
def count_tile(
    tile: Array, size: Number, lanes: Number, bar: Array, above: Array, level: Array
) -> Number:
    """Count the scores above and level with each lane's bar in a tile of `size` items x `lanes`.

    `bar`, `above` and `level` are (lanes,) float32. The result is 0 while all scores are finite.
    """
    fault = splat(np.float32(0.0))
    for lane in range(0, lanes, LANES):
        limit = load(bar, lane)
        higher = splat(np.float32(0.0))
        equal = splat(np.float32(0.0))
        for item in range(size):
            score = load(tile, item * lanes + lane)
            higher = count_above(higher, score, limit)
            equal = count_level(equal, score, limit)
            fault = fma(score, splat(np.float32(0.0)), fault)  # stays 0 while scores are finite
        store(above, lane, higher)
        store(level, lane, equal)
    return sum_lanes(fault)
