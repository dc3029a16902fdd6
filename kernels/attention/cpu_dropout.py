"""The dropout mask of `dropout.keep_mask` for compiled loops: the same words, a vector at a time."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.attention.dropout import (
    HEAD_STEP,
    KEY_STEP,
    MIX_FIRST,
    MIX_SECOND,
    ROW_STEP,
    SEQUENCE_STEP,
)
from recsys.kernels.shared.vector.compiling import compiled, intrinsic
from recsys.kernels.shared.vector.lanes import (
    INT,
    INT_VECTOR,
    LANES,
    LANES_TYPE,
    constant,
    element_pointer,
    spread,
)

_WORD = 0xFFFFFFFF


@compiled
def _mix(word: int) -> int:
    word &= _WORD
    word = ((word ^ (word >> 16)) * MIX_FIRST) & _WORD
    word = ((word ^ (word >> 15)) * MIX_SECOND) & _WORD
    return word ^ (word >> 15)


@compiled
def query_word(drop: Any, sequence: int, head: int, query: int) -> int:
    """Compute the word of one query's row of the mask, as an int32 bit pattern."""
    word = _mix(drop[0] + sequence * SEQUENCE_STEP)
    word = _mix((word ^ drop[1]) + head * HEAD_STEP)
    word = _mix(word + query * ROW_STEP)
    return word - ((word >> 31) << 32)


@intrinsic
def keep_or_zero(typing_context: Any, words: Any, at: Any, key: Any, threshold: Any, value: Any) -> Any:
    """Keep the lanes of `value` that the mask keeps at this key; zero the others."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words, at, key, threshold, value = args

        def number(x: int) -> Any:
            return ir.Constant(INT_VECTOR, [x] * LANES)

        pointer = element_pointer(context, builder, signature.args[0], words, at)
        word = builder.load(builder.bitcast(pointer, INT_VECTOR.as_pointer()), align=4)
        step = builder.mul(builder.trunc(key, INT), INT(KEY_STEP))
        word = builder.add(word, spread(builder, step, INT_VECTOR))
        for shift, factor in ((16, MIX_FIRST), (15, MIX_SECOND)):
            word = builder.mul(builder.xor(word, builder.lshr(word, number(shift))), number(factor))
        limit = spread(builder, builder.trunc(threshold, INT), INT_VECTOR)
        return builder.select(builder.icmp_unsigned(">=", word, limit), value, constant(0.0))

    return LANES_TYPE(words, types.int64, types.int64, types.int64, LANES_TYPE), emit
