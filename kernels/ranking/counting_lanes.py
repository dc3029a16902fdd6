"""Counting comparisons on SIMD vectors; counts are float32 lanes, exact up to 2^24."""

from collections.abc import Callable
from typing import Any

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
