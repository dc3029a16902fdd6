"""The compiled loops of CPU top-k: register tiles behind a threshold, short lists of what passed, merged.

Nearly every score ends in a register, at one comparison with its row's bar. The others enter the row's list;
when it is full its k best stay and the worst of them becomes the bar. A list of k + m then takes in about
k + m log(V / k) / log(1 + m / k) of the row's scores.

Entries are int64 keys: the score's bits in an order that integers have too, then the item's complement. One
comparison of keys compares scores, and ids where scores are equal; no two keys are equal.

Legend: V items, d width, `lanes` rows per group, k answers.
"""

import numpy as np

from recsys.kernels.ranking.screened_tile import (
    TALL,
    screen_eight,
    screen_four,
    screen_one,
    screen_slim,
    screen_two,
    screen_wide,
)
from recsys.kernels.ranking.skimming import margin_of, skim
from recsys.kernels.ranking.sweeps import BLOCK
from recsys.kernels.shared.vector import LANES, Array, Number, compiled, lowest_bit, next_task

FEW = 8
"""Most rows for which it pays to turn the items: beyond, rows in the lanes leave few of them idle."""

SKIMMED = 2
"""Most rows for which it pays to look before scoring: a look costs as much as reading the item from afar."""

_ZERO = np.float32(0.0)
_LOWEST = np.float32(-np.inf)
_MAGNITUDE = 0x7FFFFFFF
_LOW_WORD = 0xFFFFFFFF


@compiled
def _screen(
    rows: Number,
    left: Number,
    items: Array,
    at: Number,
    ahead: Number,
    width: Number,
    columns: Array,
    packed: Number,
    lanes: Number,
    bars: Array,
    row0: Number,
    scores: Array,
    masks: Array,
) -> Number:
    """Choose the tile by the number of rows: of all, and of those left from row0; see `screened_tile`."""
    if rows > FEW:
        if left > LANES:
            return screen_wide(items, at, ahead, width, columns, packed, lanes, bars, row0, scores, masks)
        return screen_slim(items, at, ahead, width, columns, packed, lanes, bars, row0, scores, masks)
    if rows > 4:
        return screen_eight(items, at, ahead, width, columns, packed, lanes, bars, row0, scores, masks)
    if rows > 2:
        return screen_four(items, at, ahead, width, columns, packed, lanes, bars, row0, scores, masks)
    if rows > 1:
        return screen_two(items, at, ahead, width, columns, packed, lanes, bars, row0, scores, masks)
    return screen_one(items, at, ahead, width, columns, packed, lanes, bars, row0, scores, masks)


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
    lanes: Number,
    rows: Number,
    part: Number,
    stretch: Number,
    columns: Array,
    padded: Number,
    flat: Array,
    items: Array,
    width: Number,
    closed: Array,
    barred: Array,
    starts: Array,
    ends: Array,
    k: Number,
    room: Number,
    keys: Array,
    sizes: Array,
    faults: Array,
) -> None:
    """Keep each row's k best items, and at times more, in a list of the slot's own.

    Pieces as in `rank_worker`. A slot meets the items of a row in ascending order, so an item that equals the
    row's bar is behind the k above it.

    `flat`: the rows as they are, each `padded` long. `closed`: (V,) bool, items that no row may have, or
    empty. `barred`, `starts`, `ends`: see `Barred`. `room`: length of a list, more than k, or V. `keys`:
    (slot, row, room). `sizes`: (slot, row), entries of a list, 0 at first.
    """
    count_items = len(items) // width
    blocks = (count_items + BLOCK - 1) // BLOCK
    groups = (rows + lanes - 1) // lanes
    parts = (groups + part - 1) // part
    bars = np.full(groups * lanes, _LOWEST, dtype=np.float32)
    bar_bits = bars.view(np.int32)
    bars[rows:] = np.inf  # idle lanes take nothing
    met = starts.copy()
    turned = rows <= FEW
    tall = LANES if turned else TALL
    # `skim` reads whole vectors: so many items have as much behind their start.
    whole = (len(items) - padded) // width + 1
    spare = np.zeros(tall * width + LANES, dtype=np.float32)
    scores = np.empty(2 * LANES * TALL, dtype=np.float32)
    score_bits = scores.view(np.int32)
    masks = np.empty(LANES, dtype=np.int64)
    sums = np.empty(LANES * LANES, dtype=np.float32)
    reach = margin_of(flat, width) if rows <= SKIMMED else _ZERO
    while True:
        piece = next_task(queue)
        if piece >= (blocks + stretch - 1) // stretch * parts:
            return
        block0 = piece // parts * stretch
        group0 = piece % parts * part
        for turn in range(part * stretch):
            group, block = group0 + turn % part, block0 + turn // part
            if group >= groups or block >= blocks:
                continue
            row0 = group * lanes
            across = LANES if turned or rows - row0 <= LANES else 2 * LANES
            packed = group * padded * lanes
            stop = min(count_items, (block + 1) * BLOCK)
            for item0 in range(block * BLOCK, stop, tall):
                source, at = items, item0 * width
                if item0 + tall > whole:  # the last ones, with empty ones behind them
                    source, at = spare, 0
                    for place in range(min(tall, count_items - item0) * width):
                        spare[place] = items[item0 * width + place]
                if rows <= SKIMMED:
                    near = 0
                    for own in range(rows):
                        near |= skim(source, at, tall, width, flat, own * padded, bars, own, reach, sums)
                    if near == 0:
                        continue
                verdict = _screen(
                    rows, rows - row0, source, at, at + 4 * tall * width, width, columns, packed, lanes,
                    bars, row0, scores, masks,
                )  # fmt: skip
                if verdict == 0:
                    continue
                if verdict == 2:
                    faults[slot] = 1
                    return
                for word in range(min(rows, FEW) if turned else tall):
                    mask = masks[word]
                    while mask != 0:
                        bit = lowest_bit(mask)
                        mask &= mask - 1
                        own = row0 + (word if turned else bit)
                        item = item0 + (bit if turned else word)
                        if item >= count_items or scores[word * across + bit] <= bars[own]:
                            continue
                        if len(closed) > 0 and closed[item]:
                            continue
                        if len(barred) > 0:
                            while met[own] < ends[own] and barred[met[own]] < item:
                                met[own] += 1
                            if met[own] < ends[own] and barred[met[own]] == item:
                                continue
                        list_ = slot * rows + own
                        base = list_ * room
                        order = ordered_bits(score_bits[word * across + bit])
                        keys[base + sizes[list_]] = order << 32 | (_LOW_WORD - item)
                        sizes[list_] += 1
                        if sizes[list_] == room:
                            keep_largest(keys, base, room, k)
                            bar_bits[own] = ordered_bits(keys[base + k - 1] >> 32)
                            sizes[list_] = k


@compiled
def merge_worker(
    slot: Number,
    queue: Array,
    slots: Number,
    rows: Number,
    taken: Number,
    k: Number,
    room: Number,
    keys: Array,
    sizes: Array,
    out_bits: Array,
    out_ids: Array,
) -> None:
    """Join every slot's list and order the `taken` best, best first; -inf and -1 from there to k.

    `out_bits` (row, k) int32 are the bits of the scores.
    """
    joined = np.empty(slots * room, dtype=np.int64)
    lowest = np.full(1, _LOWEST, dtype=np.float32).view(np.int32)[0]
    while True:
        row = next_task(queue)
        if row >= rows:
            return
        count = 0
        for other in range(slots):
            list_ = other * rows + row
            for place in range(sizes[list_]):
                joined[count] = keys[list_ * room + place]
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
