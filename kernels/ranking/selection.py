"""The compiled loops of CPU top-k: a heap per row and thread behind a threshold, merged at the end.

Nearly every score ends at one vector comparison with the worst score kept; about k (1 + ln(V / k)) of a
row's scores enter its heap.

Legend: V items, d width, `lanes` rows per group, k answers.
"""

import numpy as np

from recsys.kernels.ranking.sweeps import BLOCK, first_of, score_tile
from recsys.kernels.vector import (
    LANES,
    Array,
    Number,
    above_mask,
    compiled,
    fma,
    load,
    next_ticket,
    splat,
    sum_lanes,
)

_ZERO = np.float32(0.0)
_LOWEST = np.float32(-np.inf)


@compiled
def _worse(scores: Array, ids: Array, i: Number, j: Number) -> Number:
    """Whether entry i ranks behind entry j: lower score, or equal score and higher id."""
    return scores[i] < scores[j] or (scores[i] == scores[j] and ids[i] > ids[j])


@compiled
def _swap(scores: Array, ids: Array, i: Number, j: Number) -> None:
    scores[i], scores[j] = scores[j], scores[i]
    ids[i], ids[j] = ids[j], ids[i]


@compiled
def _sink(scores: Array, ids: Array, base: Number, size: Number) -> None:
    """Restore the heap from base (worst entry first) after its first entry was replaced."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        if child + 1 < size and _worse(scores, ids, base + child + 1, base + child):
            child += 1
        if not _worse(scores, ids, base + child, base + place):
            return
        _swap(scores, ids, base + place, base + child)
        place = child


@compiled
def _rise(scores: Array, ids: Array, base: Number, place: Number) -> None:
    """Restore the heap after an entry was added at its end."""
    while place > 0:
        parent = (place - 1) // 2
        if not _worse(scores, ids, base + place, base + parent):
            return
        _swap(scores, ids, base + place, base + parent)
        place = parent


@compiled
def select_worker(
    slot: Number,
    tickets: Array,
    lanes: Number,
    rows: Number,
    part: Number,
    stretch: Number,
    columns: Array,
    padded: Number,
    items: Array,
    width: Number,
    barred: Array,
    starts: Array,
    k: Number,
    best: Array,
    ids: Array,
    sizes: Array,
    faults: Array,
) -> None:
    """Keep each row's k best items in a heap of the slot's own: `best`, `ids` (slot, row, k), `sizes`.

    Pieces and `barred` as in `rank_worker`. A slot meets items in ascending order, so an item that equals
    the worst one kept is behind it.
    """
    count_items = len(items) // width
    blocks = (count_items + BLOCK - 1) // BLOCK
    groups = (rows + lanes - 1) // lanes
    parts = (groups + part - 1) // part
    tile = np.zeros(BLOCK * lanes, dtype=np.float32)
    bars = np.full(groups * lanes, _LOWEST, dtype=np.float32)
    for row in range(rows, groups * lanes):
        bars[row] = np.inf  # idle lanes take nothing
    fault = splat(_ZERO)
    while True:
        piece = next_ticket(tickets)
        if piece >= (blocks + stretch - 1) // stretch * parts:
            break
        block0 = piece // parts * stretch
        group0 = piece % parts * part
        for turn in range(part * stretch):
            group, block = group0 + turn // stretch, block0 + turn % stretch
            if group >= groups or block >= blocks:
                continue
            row0 = group * lanes
            item0 = block * BLOCK
            size = min(BLOCK, count_items - item0)
            stop = starts[block + 1]
            at = first_of(barred, starts[block], stop, (block * rows + row0) * BLOCK)
            score_tile(tile, lanes, rows, columns, group * padded * lanes, items, item0 * width, size, width)
            for place in range(0, size * lanes, LANES):
                fault = fma(load(tile, place), splat(_ZERO), fault)
            while at < stop and barred[at] < (block * rows + row0 + lanes) * BLOCK:
                tile[barred[at] % BLOCK * lanes + barred[at] // BLOCK % rows - row0] = _LOWEST
                at += 1
            for lane in range(0, lanes, LANES):
                bar = load(bars, row0 + lane)
                for item in range(size):
                    hits = above_mask(load(tile, item * lanes + lane), bar)
                    if hits == 0:
                        continue
                    for hit in range(LANES):
                        if not hits >> hit & 1:
                            continue
                        row = row0 + lane + hit
                        base = (slot * rows + row) * k
                        count = sizes[slot * rows + row]
                        place = 0 if count == k else count
                        best[base + place] = tile[item * lanes + lane + hit]
                        ids[base + place] = item0 + item
                        if count == k:
                            _sink(best, ids, base, k)
                        else:
                            _rise(best, ids, base, place)
                            sizes[slot * rows + row] = count + 1
                        if count + 1 >= k:
                            bars[row] = best[base]
                    bar = load(bars, row0 + lane)
    if sum_lanes(fault) != _ZERO:  # NaN too
        faults[slot] = 1


@compiled
def merge_worker(
    slot: Number,
    tickets: Array,
    slots: Number,
    rows: Number,
    k: Number,
    best: Array,
    ids: Array,
    sizes: Array,
    out_scores: Array,
    out_ids: Array,
) -> None:
    """Order every slot's heap and merge them, best first; -inf and -1 where they run out."""
    heads = np.empty(slots, dtype=np.int64)
    while True:
        row = next_ticket(tickets)
        if row >= rows:
            return
        for other in range(slots):
            base = (other * rows + row) * k
            for size in range(sizes[other * rows + row] - 1, 0, -1):
                _swap(best, ids, base, base + size)
                _sink(best, ids, base, size)
            heads[other] = 0
        for place in range(k):
            leader = -1
            chosen = -1
            for other in range(slots):
                at = (other * rows + row) * k + heads[other]
                if heads[other] < sizes[other * rows + row] and (leader < 0 or _worse(best, ids, leader, at)):
                    leader, chosen = at, other
            if leader < 0:
                out_scores[row * k + place] = _LOWEST
                out_ids[row * k + place] = -1
            else:
                out_scores[row * k + place] = best[leader]
                out_ids[row * k + place] = ids[leader]
                heads[chosen] += 1
