"""The compiled loops of CPU top-k: register tiles behind a threshold, short lists of what passed, merged.

Nearly every score ends in a register, at one comparison with its row's threshold. The others enter the row's
list; when it is full its k best stay and the worst of them becomes the threshold. A list of k + m then takes
in about k + m log(V / k) / log(1 + m / k) of the row's scores.

Entries are int64 keys: the score's bits in an order that integers have too, then the item's complement. One
comparison of keys compares scores, and ids where scores are equal; no two keys are equal.

Legend: V items, d width, `lanes` rows per group, k answers.
"""

import numpy as np

from recsys.kernels.ranking.cpu_pack import PackedRows
from recsys.kernels.ranking.cpu_top_k_exclude import Excluded
from recsys.kernels.ranking.cpu_top_k_prefilter import error_bound_of, prefilter
from recsys.kernels.ranking.cpu_top_k_tile import (
    TILE_ITEMS,
    filter_eight,
    filter_four,
    filter_one,
    filter_slim,
    filter_two,
    filter_wide,
)
from recsys.kernels.shared.vector import LANES, Array, Number, compiled, lowest_bit, next_task

BLOCK_V = 256
"""Items per block: the scores of one take 64 KiB with 64 lanes."""

FEW = 8
"""Most rows for which it pays to turn the items: beyond, rows in the lanes leave few of them idle."""

PREFILTER_ROWS = 2
"""Most rows for which a prefilter pays: it costs as much as reading the item from afar."""

_ZERO = np.float32(0.0)
_LOWEST = np.float32(-np.inf)
_MAGNITUDE = 0x7FFFFFFF
_LOW_WORD = 0xFFFFFFFF


@compiled
def _filter_tile(
    rows: Number,
    left: Number,
    items: Array,
    at: Number,
    ahead: Number,
    width: Number,
    columns: Array,
    packed: Number,
    lanes: Number,
    thresholds: Array,
    row0: Number,
    scores: Array,
    masks: Array,
) -> Number:
    """Choose the tile by the number of rows: of all, and of those left from row0; see `cpu_top_k_tile`."""
    if rows > FEW:
        if left > LANES:
            return filter_wide(
                items, at, ahead, width, columns, packed, lanes, thresholds, row0, scores, masks
            )
        return filter_slim(items, at, ahead, width, columns, packed, lanes, thresholds, row0, scores, masks)
    if rows > 4:
        return filter_eight(items, at, ahead, width, columns, packed, lanes, thresholds, row0, scores, masks)
    if rows > 2:
        return filter_four(items, at, ahead, width, columns, packed, lanes, thresholds, row0, scores, masks)
    if rows > 1:
        return filter_two(items, at, ahead, width, columns, packed, lanes, thresholds, row0, scores, masks)
    return filter_one(items, at, ahead, width, columns, packed, lanes, thresholds, row0, scores, masks)


@compiled
def keep_largest(keys: Array, base: Number, size: Number, k: Number) -> None:
    """Bring the k largest of keys[base : base + size] to its front, in any order, the least of them last.

    Quickselect whose inner loop has no branch to mispredict; 1 <= k <= size, no two keys equal.
    """
    low, high, goal = base, base + size - 1, base + k - 1
    while low < high:
        a, b, c = keys[low], keys[(low + high) // 2], keys[high]
        at = low if (b < a) == (a < c) else ((low + high) // 2 if (a < b) == (b < c) else high)
        pivot = keys[at]
        keys[at] = keys[high]
        keys[high] = pivot
        edge = low
        for place in range(low, high):
            key = keys[place]
            keys[place] = keys[edge]
            keys[edge] = key
            edge += key > pivot
        keys[high] = keys[edge]
        keys[edge] = pivot
        if edge == goal:
            return
        if edge < goal:
            low = edge + 1
        else:
            high = edge - 1


@compiled
def ordered_bits(bits: Number) -> Number:
    """Turn float32 bits to an int64 with the order of the floats, or back; both zeros are one."""
    wide = np.int64(bits)
    if wide >= 0:
        return wide
    return wide ^ np.int64(_MAGNITUDE) if wide & _MAGNITUDE else np.int64(0)


@compiled
def select_worker(
    slot: Number,
    queue: Array,
    batch: PackedRows,
    part: Number,
    stretch: Number,
    excluded_for_all: Array,
    lists: Excluded,
    k: Number,
    capacity: Number,
    keys: Array,
    sizes: Array,
    faults: Array,
) -> None:
    """Keep each row's k best items, and at times more, in a list of the slot's own.

    Tasks as in `rank_worker`. A slot meets the items of a row in ascending order, so an item that equals the
    row's threshold is behind the k above it.

    `excluded_for_all`: (V,) bool, items that no row may have, or empty; `lists`: what each row may not.
    `capacity`: length of a list, more than k, or V. `keys`: (slot, row, capacity). `sizes`: (slot, row),
    entries of a list, 0 at first.
    """
    rows, lanes, flat, padded, columns, items, width = batch
    excluded, starts, ends = lists
    count_items = len(items) // width
    blocks = (count_items + BLOCK_V - 1) // BLOCK_V
    groups = (rows + lanes - 1) // lanes
    parts = (groups + part - 1) // part
    thresholds = np.full(groups * lanes, _LOWEST, dtype=np.float32)
    threshold_bits = thresholds.view(np.int32)
    thresholds[rows:] = np.inf  # idle lanes take nothing
    met = starts.copy()
    turned = rows <= FEW
    tile_items = LANES if turned else TILE_ITEMS
    # `prefilter` reads whole vectors: so many items have as much behind their start.
    whole = (len(items) - padded) // width + 1
    spare = np.zeros(tile_items * width + LANES, dtype=np.float32)
    scores = np.empty(2 * LANES * TILE_ITEMS, dtype=np.float32)
    score_bits = scores.view(np.int32)
    masks = np.empty(LANES, dtype=np.int64)
    sums = np.empty(LANES * LANES, dtype=np.float32)
    reach = error_bound_of(flat, width) if rows <= PREFILTER_ROWS else _ZERO
    while True:
        task = next_task(queue)
        if task >= (blocks + stretch - 1) // stretch * parts:
            return
        block0 = task // parts * stretch
        group0 = task % parts * part
        for turn in range(part * stretch):
            group, block = group0 + turn % part, block0 + turn // part
            if group >= groups or block >= blocks:
                continue
            row0 = group * lanes
            across = LANES if turned or rows - row0 <= LANES else 2 * LANES
            packed = group * padded * lanes
            stop = min(count_items, (block + 1) * BLOCK_V)
            for item0 in range(block * BLOCK_V, stop, tile_items):
                source, at = items, item0 * width
                if item0 + tile_items > whole:  # the last ones, with empty ones behind them
                    source, at = spare, 0
                    for place in range(min(tile_items, count_items - item0) * width):
                        spare[place] = items[item0 * width + place]
                if rows <= PREFILTER_ROWS:
                    near = 0
                    for own in range(rows):
                        near |= prefilter(
                            source, at, tile_items, width, flat, own * padded, thresholds, own, reach, sums
                        )
                    if near == 0:
                        continue
                verdict = _filter_tile(
                    rows, rows - row0, source, at, at + 4 * tile_items * width, width, columns, packed, lanes,
                    thresholds, row0, scores, masks,
                )  # fmt: skip
                if verdict == 0:
                    continue
                if verdict == 2:
                    faults[slot] = 1
                    return
                for word in range(min(rows, FEW) if turned else tile_items):
                    mask = masks[word]
                    while mask != 0:
                        bit = lowest_bit(mask)
                        mask &= mask - 1
                        own = row0 + (word if turned else bit)
                        item = item0 + (bit if turned else word)
                        if item >= count_items or scores[word * across + bit] <= thresholds[own]:
                            continue
                        if len(excluded_for_all) > 0 and excluded_for_all[item]:
                            continue
                        if len(excluded) > 0:
                            while met[own] < ends[own] and excluded[met[own]] < item:
                                met[own] += 1
                            if met[own] < ends[own] and excluded[met[own]] == item:
                                continue
                        list_ = slot * rows + own
                        base = list_ * capacity
                        order = ordered_bits(score_bits[word * across + bit])
                        keys[base + sizes[list_]] = order << 32 | (_LOW_WORD - item)
                        sizes[list_] += 1
                        if sizes[list_] == capacity:
                            keep_largest(keys, base, capacity, k)
                            threshold_bits[own] = ordered_bits(keys[base + k - 1] >> 32)
                            sizes[list_] = k


@compiled
def merge_worker(
    slot: Number,
    queue: Array,
    slots: Number,
    rows: Number,
    taken: Number,
    k: Number,
    capacity: Number,
    keys: Array,
    sizes: Array,
    out_bits: Array,
    out_ids: Array,
) -> None:
    """Join every slot's list and order the `taken` best, best first; -inf and -1 from there to k.

    `out_bits` (row, k) int32 are the bits of the scores.
    """
    joined = np.empty(slots * capacity, dtype=np.int64)
    lowest = np.full(1, _LOWEST, dtype=np.float32).view(np.int32)[0]
    while True:
        row = next_task(queue)
        if row >= rows:
            return
        count = 0
        for other in range(slots):
            list_ = other * rows + row
            for place in range(sizes[list_]):
                joined[count] = keys[list_ * capacity + place]
                count += 1
        if count > taken:
            keep_largest(joined, 0, count, taken)
            count = taken
        joined[:count].sort()
        for place in range(k):
            if place < count:
                key = joined[count - 1 - place]
                out_bits[row * k + place] = ordered_bits(key >> 32)
                out_ids[row * k + place] = _LOW_WORD - (key & _LOW_WORD)
            else:
                out_bits[row * k + place] = lowest
                out_ids[row * k + place] = -1
