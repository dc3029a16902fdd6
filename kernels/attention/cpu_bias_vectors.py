"""The time bias of `bias.AttentionBias` for compiled loops: buckets and table entries, a vector at a time."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from recsys.kernels.attention.bias import MAX_GAP
from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import (
    INT,
    INT_VECTOR,
    LANES,
    LANES_TYPE,
    VECTOR,
    constant,
    element_pointer,
    load_vector,
    spread,
)

TABLE_ENTRIES = 128
"""Length that a time table is padded to: the lookup reads all of it."""

_BYTE = ir.IntType(8)
_WORD = ir.IntType(64)
_WORDS = ir.VectorType(_WORD, LANES)


def _numbers(value: int, vector: Any = INT_VECTOR) -> Any:
    return ir.Constant(vector, [value] * LANES)


def _smaller(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _bucket(builder: Any, gap: Any, last: Any) -> Any:
    """Emit `bias.time_bucket` of 32-bit gaps in [0, MAX_GAP], clipped to `last`."""
    # Without the bits that lie eight below a set one, no carry of the rounding to 24 bits can reach the three
    # leading bits: the float's exponent and first two bits of mantissa are those of the gap, exactly.
    thin = builder.and_(gap, builder.not_(builder.lshr(gap, _numbers(8))))
    bits = builder.bitcast(builder.sitofp(thin, VECTOR), INT_VECTOR)
    bucket = builder.sub(builder.lshr(bits, _numbers(21)), _numbers(4 * (127 + 1)))
    small = builder.icmp_signed("<", gap, _numbers(4))
    return _smaller(builder, builder.select(small, gap, bucket), last)


def _look_up(builder: Any, table: Any, index: Any) -> Any:
    """Emit table[index] for indices below TABLE_ENTRIES."""
    if LANES != 16:
        found = ir.Constant(VECTOR, ir.Undefined)
        for lane in range(LANES):
            entry = builder.zext(builder.extract_element(index, INT(lane)), _WORD)
            found = builder.insert_element(found, builder.load(builder.gep(table, [entry])), INT(lane))
        return found
    # AVX-512: the table lies in eight registers, a permutation of two at a time picks among 32 entries.
    declare: Any = cgutils.get_or_insert_function
    permute = declare(
        builder.module,
        ir.FunctionType(VECTOR, [VECTOR, INT_VECTOR, VECTOR]),
        "llvm.x86.avx512.vpermi2var.ps.512",
    )
    found = None
    for entry in reversed(range(0, TABLE_ENTRIES, 2 * LANES)):
        low, high = (load_vector(builder, builder.gep(table, [_WORD(entry + n)])) for n in (0, LANES))
        for half in (low, high):  # nothing writes to tables: load them once, ahead of the loop over keys
            half.set_metadata("invariant.load", builder.module.add_metadata([]))
        part = builder.call(permute, [low, index, high])
        below = builder.icmp_signed("<", index, _numbers(entry + 2 * LANES))
        found = part if found is None else builder.select(below, part, found)
    return found


@intrinsic
def time_scores(
    typing_context: Any,
    table: Any,
    first: Any,
    last: Any,
    times: Any,
    at: Any,
    key_time: Any,
    buckets: Any,
    place: Any,
) -> Any:
    """Look up the entries for the gaps between LANES queries and one key.

    Args:
        typing_context: numba's.
        table: float32, TABLE_ENTRIES entries from `first`; not to be written in the same launch.
        first: see `table`.
        last: T - 1.
        times: int64 seconds of the queries, from `at`.
        at: see `times`.
        key_time: int64 seconds.
        buckets: int8; the buckets are written to it from `place`.
        place: see `buckets`.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        table, first, last, times, at, key_time, buckets, place = args
        start = element_pointer(context, builder, signature.args[3], times, at)
        queries = builder.load(builder.bitcast(start, _WORDS.as_pointer()), align=8)
        away = builder.sub(queries, spread(builder, key_time, _WORDS))
        backward = builder.icmp_signed("<", away, _numbers(0, _WORDS))
        gap = builder.select(backward, builder.neg(away), away)
        gap = builder.trunc(_smaller(builder, gap, _numbers(MAX_GAP, _WORDS)), INT_VECTOR)
        bucket = _bucket(builder, gap, spread(builder, builder.trunc(last, INT), INT_VECTOR))
        to = element_pointer(context, builder, signature.args[6], buckets, place)
        narrow = builder.trunc(bucket, ir.VectorType(_BYTE, LANES))
        builder.store(narrow, builder.bitcast(to, narrow.type.as_pointer()), align=1)
        entries = element_pointer(context, builder, signature.args[0], table, first)
        return _look_up(builder, entries, bucket)

    number = types.int64
    return LANES_TYPE(table, number, number, times, number, number, buckets, number), emit


@intrinsic
def slide(typing_context: Any, value: Any) -> Any:
    """Move every lane up by one; lane 0 becomes zero."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.Constant(INT_VECTOR, [LANES, *range(LANES - 1)])
        return builder.shuffle_vector(args[0], constant(0.0), lanes)

    return LANES_TYPE(LANES_TYPE), emit


@intrinsic
def last_lane(typing_context: Any, value: Any) -> Any:
    """Take the last lane."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.extract_element(args[0], INT(LANES - 1))

    return types.float32(LANES_TYPE), emit
