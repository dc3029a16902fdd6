"""All scores of a short table for one query, then the best of them, with no threshold on the way.

Where a tenth of the items or so is wanted, nearly every tile of `ranking` holds one that passes its
threshold, and would be scored twice. Sums are joined lane by lane, in one order for every item.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.ranking.cpu_top_k import keep_largest, ordered_bits
from recsys.kernels.ranking.cpu_top_k_prefilter import fold
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    above_mask,
    compiled,
    fma,
    load,
    lowest_bit,
    splat,
    store,
)
from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import element_pointer, load_vector, store_vector

_ZERO = np.float32(0.0)
_LEAST_SLACK = 22
_LOW_WORD = 0xFFFFFFFF
_WORD = ir.IntType(64)


@intrinsic
def _join(typing_context: Any, sums: Any, target: Any, at: Any) -> Any:
    """Add the lanes of each of LANES vectors of `sums` and store the LANES results to target[at]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = element_pointer(context, builder, signature.args[0], args[0], _WORD(0))
        rows = [load_vector(builder, builder.gep(first, [_WORD(i * LANES)])) for i in range(LANES)]
        to = element_pointer(context, builder, signature.args[1], args[1], args[2])
        store_vector(builder, fold(builder, rows), to)
        return context.get_dummy_value()

    return types.void(sums, target, types.int64), emit


@compiled
def best_of_table(
    query: Array,
    at: Number,
    table: Array,
    width: Number,
    lanes: Number,
    count: Number,
    found: Array,
    places: Array,
    to: Number,
) -> None:
    """Write the scores and places of the `count` best items to found[to] and places[to], best first.

    The query lies at query[at]; `table` holds at least `count` >= 1 items of `width` elements each, all
    finite. `lanes` is LANES, but unknown to the compiler.
    """
    items = len(table) // width
    blocks = (items + LANES - 1) // LANES
    padded = (width + LANES - 1) // LANES * LANES
    row = np.zeros(padded, dtype=np.float32)
    row[:width] = query[at : at + width]
    scores = np.empty(blocks * LANES, dtype=np.float32)
    sums = np.empty(LANES * LANES, dtype=np.float32)
    # Vectors are read whole: what lies behind an item meets zeros, but must be there and be finite.
    spare = np.zeros(LANES * width + LANES, dtype=np.float32)
    whole = (len(table) - padded) // width + 1
    for block in range(blocks):
        item0 = block * LANES
        if item0 + LANES <= whole:
            _sum_block(table, item0 * width, width, lanes, row, sums)
        else:
            for place in range(min(LANES, items - item0) * width):
                spare[place] = table[item0 * width + place]
            _sum_block(spare, 0, width, lanes, row, sums)
        _join(sums, scores, item0)
    bits = scores.view(np.int32)
    capacity = min(items, 2 * count + _LEAST_SLACK)
    keys = np.empty(capacity, dtype=np.int64)
    kept, threshold = 0, np.float32(-np.inf)
    scores[items:] = -np.inf
    for item0 in range(0, items, LANES):
        mask = above_mask(load(scores, item0), splat(threshold))
        while mask != 0:
            item = item0 + lowest_bit(mask)
            mask &= mask - 1
            # Items come in ascending order: one that equals the threshold is behind all that made it.
            if scores[item] <= threshold:
                continue
            keys[kept] = ordered_bits(bits[item]) << 32 | (_LOW_WORD - item)
            kept += 1
            if kept == capacity:
                keep_largest(keys, 0, capacity, count)
                kept = count
                threshold = scores[_LOW_WORD - (keys[count - 1] & _LOW_WORD)]
    keep_largest(keys, 0, kept, count)
    best = keys[:count]
    best.sort()
    found_bits = found.view(np.int32)
    for place in range(count):
        key = best[count - 1 - place]
        found_bits[to + place] = ordered_bits(key >> 32)
        places[to + place] = _LOW_WORD - (key & _LOW_WORD)


@compiled
def _sum_block(table: Array, at: Number, width: Number, count: Number, row: Array, sums: Array) -> None:
    """Multiply `count` = LANES items from table[at] with the row, four at a time."""
    for item in range(0, count, 4):
        first = at + item * width
        s0, s1, s2, s3 = splat(_ZERO), splat(_ZERO), splat(_ZERO), splat(_ZERO)
        for d in range(0, width, LANES):
            own = load(row, d)
            s0 = fma(load(table, first + d), own, s0)
            s1 = fma(load(table, first + width + d), own, s1)
            s2 = fma(load(table, first + 2 * width + d), own, s2)
            s3 = fma(load(table, first + 3 * width + d), own, s3)
        store(sums, item * LANES, s0)
        store(sums, (item + 1) * LANES, s1)
        store(sums, (item + 2) * LANES, s2)
        store(sums, (item + 3) * LANES, s3)
