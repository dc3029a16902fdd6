"""Register tiles that score items against rows and write nothing unless a score passes its row's threshold.

A tile holds all its scores in registers. Nearly every tile of a top-k search holds none that matters, so it
ends at a maximum, a comparison and a branch: its scores never reach memory. Both forms give each score as one
chain of fused multiply-adds over d = 0..width-1, as `vector.product` does: the same bits in every form.

Every tile returns 0 where no score is above its threshold and all are finite; 1 after it has stored its
scores and, per item or row, the mask of those above; 2 where a score is NaN or infinite.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.ranking.cpu_top_k_llvm import any_lane, begin_loop, end_loop, tree
from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import (
    INT_VECTOR,
    LANES,
    VECTOR,
    call,
    constant,
    element_pointer,
    load_vector,
    prefetch,
    spread,
    store_vector,
)

TILE_ITEMS = 8 if LANES == 16 else 4
"""Items of a register tile: with two vectors of rows, 16 sums in AVX-512's 32 registers or 8 in AVX2's 16."""

_WORD = ir.IntType(64)
_BITS = ir.IntType(LANES)


def _larger(builder: Any) -> Any:
    return lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _compare(
    builder: Any, sums: list[list[Any]], thresholds: list[Any], scores: Any, masks: Any, packed: int
) -> Any:
    """Emit the end of a tile: `sums[i]` are compared with `thresholds[i]`; returns the tile's verdict.

    On a hit the vectors are stored to `scores` in the order j, i and the mask of each `packed` vectors in
    that order to one word of `masks`.
    """
    flat = [column[j] for j in range(len(sums[0])) for column in sums]
    best = [tree(list(column), _larger(builder)) for column in sums]
    above = [builder.fcmp_ordered(">", b, threshold) for b, threshold in zip(best, thresholds, strict=True)]
    # A maximum forgets NaN and -inf, a sum remembers them; a sum that merely overflows is looked at again.
    total = tree(list(flat), builder.fadd)
    doubt = builder.fcmp_unordered("uno", builder.fsub(total, total), constant(0.0))
    before = builder.block
    write, done = builder.append_basic_block("compare.write"), builder.append_basic_block("compare.done")
    unlikely = builder.cbranch(any_lane(builder, tree([*above, doubt], builder.or_)), write, done)
    unlikely.set_weights([1, 15])

    builder.position_at_end(write)
    wrong = [builder.fcmp_unordered("uno", builder.fsub(s, s), constant(0.0)) for s in flat]
    fault = any_lane(builder, tree(wrong, builder.or_))
    for place, value in enumerate(flat):
        store_vector(builder, value, builder.gep(scores, [_WORD(place * LANES)]))
    words = []
    for place, value in enumerate(flat):
        hits = builder.fcmp_ordered(">", value, thresholds[place % len(thresholds)])
        word = builder.zext(builder.bitcast(hits, _BITS), _WORD)
        words.append(builder.shl(word, _WORD(place % packed * LANES)))
    for first in range(0, len(words), packed):
        word = tree(words[first : first + packed], builder.or_)
        builder.store(word, builder.gep(masks, [_WORD(first // packed)]))
    verdict = builder.select(fault, _WORD(2), _WORD(1))
    written = builder.block
    builder.branch(done)

    builder.position_at_end(done)
    result = builder.phi(_WORD)
    result.add_incoming(_WORD(0), before)
    result.add_incoming(verdict, written)
    return result


class _Tile(NamedTuple):
    """Where a tile's operands lie, as pointers and numbers in LLVM code."""

    items: Any
    near: Any
    width: Any
    columns: Any
    stride: Any
    thresholds: Any
    scores: Any
    masks: Any


def _tile(body: Callable[[Any, _Tile], Any]) -> Any:
    """Make the compiled function of a tile from the code of its body; its arguments: see `filter_wide`."""

    @intrinsic
    def tile(
        typing_context: Any,
        items: Any,
        at: Any,
        ahead: Any,
        width: Any,
        columns: Any,
        packed: Any,
        stride: Any,
        thresholds: Any,
        thresholds_at: Any,
        scores: Any,
        masks: Any,
    ) -> Any:
        number = types.int64
        signature = types.int64(
            items, number, number, number, columns, number, number, thresholds, number, scores, masks
        )

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            items, at, ahead, width, columns, packed, stride, thresholds, thresholds_at, scores, masks = args

            def pointer(place: int, array: Any, index: Any) -> Any:
                return element_pointer(context, builder, signature.args[place], array, index)

            operands = _Tile(
                items=pointer(0, items, at),
                near=pointer(0, items, ahead),
                width=width,
                columns=pointer(4, columns, packed),
                stride=stride,
                thresholds=pointer(7, thresholds, thresholds_at),
                scores=pointer(9, scores, _WORD(0)),
                masks=pointer(10, masks, _WORD(0)),
            )
            return body(builder, operands)

        return signature, emit

    return tile


def _rows_in_lanes(vectors: int) -> Any:
    """Make the tile of TILE_ITEMS items and `vectors * LANES` rows, for batches."""

    def body(builder: Any, tile: _Tile) -> Any:
        loop = begin_loop(builder, "tile", _WORD(0), tile.width, 1, [constant(0.0)] * (TILE_ITEMS * vectors))
        d, _, sums = loop
        prefetch(builder, builder.gep(tile.near, [builder.mul(d, _WORD(TILE_ITEMS))]))
        row = builder.gep(tile.columns, [builder.mul(d, tile.stride)])
        right = [load_vector(builder, builder.gep(row, [_WORD(n * LANES)])) for n in range(vectors)]
        column = builder.gep(tile.items, [d])
        new = []
        for m in range(TILE_ITEMS):
            left = spread(builder, builder.load(builder.gep(column, [builder.mul(tile.width, _WORD(m))])))
            new += [call(builder, "llvm.fma", left, right[n], sums[m * vectors + n]) for n in range(vectors)]
        end_loop(builder, loop, new)
        limits = [
            load_vector(builder, builder.gep(tile.thresholds, [_WORD(n * LANES)])) for n in range(vectors)
        ]
        by_vector = [sums[n::vectors] for n in range(vectors)]
        return _compare(builder, by_vector, limits, tile.scores, tile.masks, vectors)

    return _tile(body)


def _turn(builder: Any, rows: list[Any]) -> list[Any]:
    """Emit the transpose of LANES vectors in registers, by shuffles that need no table of places."""

    def shuffle(a: Any, b: Any, places: list[int]) -> Any:
        return builder.shuffle_vector(a, b, ir.Constant(INT_VECTOR, places))

    quads = range(0, LANES, 4)
    low = [x for q in quads for x in (q, q + LANES, q + 1, q + 1 + LANES)]
    high = [x for q in quads for x in (q + 2, q + 2 + LANES, q + 3, q + 3 + LANES)]
    low_pair = [x for q in quads for x in (q, q + 1, q + LANES, q + 1 + LANES)]
    high_pair = [x for q in quads for x in (q + 2, q + 3, q + 2 + LANES, q + 3 + LANES)]
    # Within quads: by_quad[g][j] holds element 4 q + j of items 4 g .. 4 g + 3 in quad q.
    by_quad = []
    for g in quads:
        first, second = ([shuffle(rows[i], rows[i + 1], p) for p in (low, high)] for i in (g, g + 2))
        by_quad.append([shuffle(first[h], second[h], p) for h in (0, 1) for p in (low_pair, high_pair)])
    # Between quads: even ones of two vectors together, then odd ones, until each holds one element.
    pairs = range(0, 2 * LANES // 4, 2)
    even = [4 * q + x for q in pairs for x in range(4)]
    odd = [4 * q + 4 + x for q in pairs for x in range(4)]
    turned: list[Any] = [None] * LANES
    for j in range(4):
        parts = {0: [group[j] for group in by_quad]}
        step = 1
        while step < LANES // 4:
            split = {}
            for quad, vectors in parts.items():
                for extra, places in ((0, even), (step, odd)):
                    split[quad + extra] = [
                        shuffle(vectors[i], vectors[i + 1], places) for i in range(0, len(vectors), 2)
                    ]
            parts = split
            step *= 2
        for quad, vectors in parts.items():
            turned[4 * quad + j] = vectors[0]
    return turned


def _items_in_lanes(rows: int) -> Any:
    """Make the tile of LANES items and `rows` rows, for a few rows: items are turned on their way."""

    def body(builder: Any, tile: _Tile) -> Any:
        def add(sums: list[Any], turned: Any, d: Any) -> list[Any]:
            own = builder.gep(tile.columns, [builder.mul(d, tile.stride)])
            elements = [builder.load(builder.gep(own, [_WORD(r)])) for r in range(rows)]
            return [
                call(builder, "llvm.fma", spread(builder, x), turned, total)
                for x, total in zip(elements, sums, strict=True)
            ]

        loop = begin_loop(builder, "whole", _WORD(0), tile.width, LANES, [constant(0.0)] * rows)
        d, _, sums = loop
        lines = builder.gep(tile.near, [builder.mul(d, _WORD(LANES))])
        for line in range(LANES):
            prefetch(builder, builder.gep(lines, [_WORD(line * LANES)]))
        column = builder.gep(tile.items, [d])
        loaded = [
            load_vector(builder, builder.gep(column, [builder.mul(tile.width, _WORD(item))]))
            for item in range(LANES)
        ]
        new = list(sums)
        for offset, turned in enumerate(_turn(builder, loaded)):
            new = add(new, turned, builder.add(d, _WORD(offset)))
        end_loop(builder, loop, new)

        loop = begin_loop(builder, "rest", d, tile.width, 1, sums)
        d, _, sums = loop
        turned = ir.Constant(VECTOR, ir.Undefined)
        column = builder.gep(tile.items, [d])
        for item in range(LANES):
            value = builder.load(builder.gep(column, [builder.mul(tile.width, _WORD(item))]))
            turned = builder.insert_element(turned, value, ir.IntType(32)(item))
        end_loop(builder, loop, add(sums, turned, d))

        limits = [
            spread(builder, builder.load(builder.gep(tile.thresholds, [_WORD(r)]))) for r in range(rows)
        ]
        return _compare(builder, [[s] for s in sums], limits, tile.scores, tile.masks, 1)

    return _tile(body)


filter_wide, filter_slim = _rows_in_lanes(2), _rows_in_lanes(1)
"""(items, at, ahead, width, columns, packed, stride, thresholds, thresholds_at, scores, masks).

TILE_ITEMS items from items[at], each `width` apart, against 2 * LANES or LANES rows; row r's element d is
columns[packed + d stride + r], its threshold thresholds[thresholds_at + r]. items[ahead] is where the next
tiles lie.

On a hit scores[m * lanes + r] is item m's with row r, and bit r of masks[m] says that it is above.
"""

filter_one, filter_two, filter_four, filter_eight = (_items_in_lanes(rows) for rows in (1, 2, 4, 8))
"""The same arguments for LANES items and 1 to 8 rows: scores[r * LANES + m], and bit m of masks[r]."""
