"""The mask of `mask.keep_mask` for compiled loops: the same words, a vector at a time."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.pointwise.mask import COLUMN_STEP, MIX_FIRST, MIX_SECOND
from recsys.kernels.shared import random_words
from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import INT, INT_VECTOR, LANES, LANES_TYPE, constant, spread

_WORD = ir.IntType(64)


def _mix(builder: Any, word: Any) -> Any:
    """Emit `random_words.mix` of a 64-bit word."""
    for shift, factor in ((30, random_words.MIX_FIRST), (27, random_words.MIX_SECOND)):
        word = builder.mul(builder.xor(word, builder.lshr(word, _WORD(shift))), _WORD(factor))
    return builder.xor(word, builder.lshr(word, _WORD(31)))


@intrinsic
def row_key(typing_context: Any, seed: Any, row: Any) -> Any:
    """Compute the word of one row, as an int64 bit pattern; `random_words.row_keys` defines it."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = _mix(builder, builder.add(args[0], _WORD(random_words.ATTEMPT_STEP)))
        return _mix(builder, builder.add(builder.mul(args[1], _WORD(random_words.ROW_STEP)), start))

    return types.int64(types.int64, types.int64), emit


@intrinsic
def keep_factor(typing_context: Any, key: Any, column: Any, threshold: Any, factor: Any) -> Any:
    """Take `factor` in the lanes l whose element column + l of the key's row is kept, 0 in the others."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        key, column, threshold, factor = args

        def number(x: int) -> Any:
            return ir.Constant(INT_VECTOR, [x] * LANES)

        steps = ir.Constant(INT_VECTOR, [lane * COLUMN_STEP & 0xFFFFFFFF for lane in range(LANES)])
        first = builder.add(
            builder.trunc(key, INT), builder.mul(builder.trunc(column, INT), INT(COLUMN_STEP))
        )
        word = builder.add(spread(builder, first, INT_VECTOR), steps)
        word = builder.mul(builder.xor(word, builder.lshr(word, number(16))), number(MIX_FIRST))
        high = builder.trunc(builder.lshr(key, _WORD(32)), INT)
        word = builder.xor(word, spread(builder, high, INT_VECTOR))
        word = builder.mul(builder.xor(word, builder.lshr(word, number(15))), number(MIX_SECOND))
        limit = spread(builder, builder.trunc(threshold, INT), INT_VECTOR)
        return builder.select(builder.icmp_unsigned(">=", word, limit), factor, constant(0.0))

    return LANES_TYPE(types.int64, types.int64, types.int64, LANES_TYPE), emit
