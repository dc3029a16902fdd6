"""Choices by place and by item for the compiled loops of repeats, a vector of rows at a time."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import INT_VECTOR, LANES, LANES_TYPE, element_pointer, spread

__all__ = ["any_equal", "select_equal", "select_within"]


@intrinsic
def select_within(typing_context: Any, x: Any, low: Any, high: Any, value: Any, otherwise: Any) -> Any:
    """Take `value` in lanes with low <= x <= high (float32), `otherwise` in the others."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, low, high, value, otherwise = args
        above = builder.fcmp_ordered(">=", x, spread(builder, low))
        below = builder.fcmp_ordered("<=", x, spread(builder, high))
        return builder.select(builder.and_(above, below), value, otherwise)

    return LANES_TYPE(LANES_TYPE, types.float32, types.float32, LANES_TYPE, LANES_TYPE), emit


def _equal(context: Any, builder: Any, ids_type: Any, ids: Any, at: Any, expected: Any) -> Any:
    """Emit the mask of lanes l with ids[at + l] == expected."""
    pointer = element_pointer(context, builder, ids_type, ids, at)
    found = builder.load(builder.bitcast(pointer, INT_VECTOR.as_pointer()), align=4)
    return builder.icmp_signed("==", found, spread(builder, expected, INT_VECTOR))


@intrinsic
def select_equal(typing_context: Any, ids: Any, at: Any, expected: Any, value: Any, otherwise: Any) -> Any:
    """Take `value` in lanes l with ids[at + l] == expected (int32), `otherwise` in the others."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        same = _equal(context, builder, signature.args[0], *args[:3])
        return builder.select(same, *args[3:])

    return LANES_TYPE(ids, types.int64, types.int32, LANES_TYPE, LANES_TYPE), emit


@intrinsic
def any_equal(typing_context: Any, ids: Any, at: Any, expected: Any) -> Any:
    """Whether ids[at + l] == expected (int32) in some lane l."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(LANES)
        same = _equal(context, builder, signature.args[0], *args)
        return builder.icmp_unsigned("!=", builder.bitcast(same, word), word(0))

    return types.boolean(ids, types.int64, types.int32), emit
