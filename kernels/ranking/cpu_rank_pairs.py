"""Scores of scattered pairs of a row and an item, with the bits that the tiles' products give them.

A score is one chain of multiply-adds, each of which waits for the one before: `TOGETHER` chains run side by
side.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from recsys.kernels.shared.vector.compiling import Array, Number, compiled, intrinsic
from recsys.kernels.shared.vector.lanes import FLOAT, element_pointer

TOGETHER = 8

_WORD = ir.IntType(64)


@intrinsic
def _chains(
    typing_context: Any,
    scores: Any,
    first: Any,
    hidden: Any,
    rows_at: Any,
    items: Any,
    items_at: Any,
    width: Any,
) -> Any:
    """Score the pairs `first` to `first` + TOGETHER - 1."""
    signature = types.void(scores, types.int64, hidden, rows_at, items, items_at, types.int64)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scores, first, hidden, rows_at, items, items_at, width = args
        kinds = signature.args
        function_type = ir.FunctionType(FLOAT, [FLOAT] * 3)
        declare: Any = cgutils.get_or_insert_function
        fma = declare(builder.module, function_type, "llvm.fma.f32")
        places = [builder.add(first, _WORD(pair)) for pair in range(TOGETHER)]

        def starts(kind: Any, values: Any, at_kind: Any, at: Any) -> list[Any]:
            begins = [builder.load(element_pointer(context, builder, at_kind, at, p)) for p in places]
            return [element_pointer(context, builder, kind, values, begin) for begin in begins]

        left, right = starts(kinds[2], hidden, kinds[3], rows_at), starts(kinds[4], items, kinds[5], items_at)
        entry = builder.block
        head, body, end = (builder.append_basic_block(f"chains.{name}") for name in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        d = builder.phi(_WORD)
        d.add_incoming(_WORD(0), entry)
        sums = [builder.phi(FLOAT) for _ in places]
        for sum_ in sums:
            sum_.add_incoming(FLOAT(0.0), entry)
        builder.cbranch(builder.icmp_signed("<", d, width), body, end)
        builder.position_at_end(body)
        for sum_, a, b in zip(sums, left, right, strict=True):
            factors = [builder.load(builder.gep(pointer, [d])) for pointer in (a, b)]
            sum_.add_incoming(builder.call(fma, [*factors, sum_]), body)
        d.add_incoming(builder.add(d, _WORD(1)), body)
        builder.branch(head)
        builder.position_at_end(end)
        for sum_, place in zip(sums, places, strict=True):
            builder.store(sum_, element_pointer(context, builder, kinds[0], scores, place))
        return context.get_dummy_value()

    return signature, emit


@compiled
def score_pairs(
    scores: Array,
    pairs: Number,
    hidden: Array,
    rows_at: Array,
    items: Array,
    items_at: Array,
    width: Number,
) -> None:
    """Score pair p of the row at hidden[rows_at[p]] and the item at items[items_at[p]].

    `scores` (float32), `rows_at` and `items_at` (int64) have places for `pairs` rounded up to TOGETHER, and
    something is written there.
    """
    for place in range(pairs, (pairs + TOGETHER - 1) // TOGETHER * TOGETHER):
        rows_at[place] = 0
        items_at[place] = 0
    for first in range(0, pairs, TOGETHER):
        _chains(scores, first, hidden, rows_at, items, items_at, width)
