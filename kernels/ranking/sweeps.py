"""The compiled loops of CPU ranking: blocks of items times groups of rows, scored and consumed in cache.

Scores lie transposed, items x lanes with one row of the batch per lane, so that the item table is read in
place. Every score is one chain of fused multiply-adds over d: it has the same bits in every tile, so a
target's score can be found beforehand and compared with its competitors'.

Legend: V items, d width (a multiple of LANES in the packed rows), `lanes` rows per group.
"""

import numpy as np

from recsys.kernels.ranking.counting_lanes import count_tile
from recsys.kernels.vector import (
    LANES,
    Array,
    Number,
    compiled,
    next_ticket,
    product,
    splat,
    store,
    transpose_square,
)

BLOCK = 256
"""Items per tile: its scores take 64 KiB with 64 lanes."""

_ZERO = np.float32(0.0)


@compiled
def pack_worker(
    slot: Number,
    tickets: Array,
    lanes: Number,
    rows: Number,
    hidden: Array,
    padded: Number,
    items: Array,
    width: Number,
    targets: Array,
    columns: Array,
    bars: Array,
) -> None:
    """Lay groups of rows as columns (group, d, lane) and find the targets' scores, if there are targets."""
    groups = (rows + lanes - 1) // lanes
    row_scores = np.empty(LANES, dtype=np.float32)
    while True:
        group = next_ticket(tickets)
        if group >= groups:
            return
        row0 = group * lanes
        for lane in range(0, lanes, LANES):
            count = min(LANES, rows - row0 - lane)
            for d in range(0, padded, LANES):
                to = group * padded * lanes + d * lanes + lane
                if count > 0:
                    at = (row0 + lane) * padded + d
                    transpose_square(columns, to, lanes, hidden, at, padded, count)
                else:
                    for column in range(LANES):
                        store(columns, to + column * lanes, splat(_ZERO))
            if len(targets) > 0:
                for row in range(row0 + lane, row0 + lane + count):
                    product(
                        row_scores, 0, LANES, items, targets[row] * width, width, 1,
                        columns, group * padded * lanes + lane, lanes, 1, LANES, width, False,
                    )  # fmt: skip
                    bars[row] = row_scores[row - row0 - lane]


@compiled
def rank_worker(
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
    bars: Array,
    targets: Array,
    barred: Array,
    starts: Array,
    ends: Array,
    counts: Array,
    faults: Array,
) -> None:
    """Count scores above and level with each row's bar, among all items and among the barred ones.

    A piece is `stretch` blocks of items and `part` groups of rows. `barred`, `starts`, `ends`: see
    `Barred`; a row's target is never barred. `counts` is (slot, 4, row): above, level, above and barred,
    level and barred.
    """
    count_items = len(items) // width
    blocks = (count_items + BLOCK - 1) // BLOCK
    groups = (rows + lanes - 1) // lanes
    parts = (groups + part - 1) // part
    tile = np.zeros(BLOCK * lanes, dtype=np.float32)
    bar = np.zeros(lanes, dtype=np.float32)
    above = np.empty(lanes, dtype=np.float32)
    level = np.empty(lanes, dtype=np.float32)
    fault = _ZERO
    mine = slot * 4 * rows
    met = starts.copy()
    while True:
        piece = next_ticket(tickets)
        if piece >= (blocks + stretch - 1) // stretch * parts:
            break
        block0 = piece // parts * stretch
        group0 = piece % parts * part
        for turn in range(part * stretch):
            group, block = group0 + turn % part, block0 + turn // part
            if group >= groups or block >= blocks:
                continue
            row0 = group * lanes
            item0 = block * BLOCK
            size = min(BLOCK, count_items - item0)
            count = min(lanes, rows - row0)
            product(
                tile, 0, lanes, items, item0 * width, width, 1,
                columns, group * padded * lanes, lanes, size, lanes, width, False,
            )  # fmt: skip
            for lane in range(count):
                bar[lane] = bars[row0 + lane]
            fault += count_tile(tile, size, lanes, bar, above, level)
            for lane in range(count):
                counts[mine + row0 + lane] += np.int64(above[lane])
                counts[mine + rows + row0 + lane] += np.int64(level[lane])
            for lane in range(count if len(barred) > 0 else 0):
                row = row0 + lane
                at, end = met[row], ends[row]
                over, same = 0, 0
                # Blocks that other threads took lie between.
                while at < end and barred[at] < item0:
                    at += 1
                while at < end and barred[at] < item0 + size:
                    score_ = tile[(barred[at] - item0) * lanes + lane]
                    over += score_ > bar[lane]
                    same += score_ == bar[lane] and barred[at] != targets[row]
                    at += 1
                met[row] = at
                counts[mine + 2 * rows + row] += over
                counts[mine + 3 * rows + row] += same
    if fault != _ZERO:  # NaN too
        faults[slot] = 1
