"""The compiled loops of CPU ranking: blocks of items times groups of rows, scored and consumed in cache.

Scores lie transposed, items x lanes with one row of the batch per lane, so that the item table is read in
place. Every score is one chain of fused multiply-adds over d: it has the same bits in every tile, so a
target's score can be found beforehand and compared with its competitors'.

Legend: V items, d width (a multiple of LANES in the packed rows), `lanes` rows per group.
"""

import numpy as np

from recsys.kernels.ranking.counting_lanes import count_tile
from recsys.kernels.ranking.marks import ITEMS, PART_ROWS, mark_lanes
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    compiled,
    next_task,
    product,
    scratch,
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
    queue: Array,
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
        group = next_task(queue)
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
    queue: Array,
    lanes: Number,
    rows: Number,
    stretch: Number,
    columns: Array,
    padded: Number,
    items: Array,
    width: Number,
    bars: Array,
    targets: Array,
    excluded: Array,
    offsets: Array,
    counts: Array,
    faults: Array,
) -> None:
    """Count scores above and level with each row's bar, among all items and among the excluded ones.

    A piece is `stretch` tiles of items and `PART_ROWS` rows. `excluded` and `offsets`: see `mark_rows`;
    both are empty where nothing is. `counts` is (slot, 4, row): above, level, above and excluded, level and
    excluded.
    """
    count_items = len(items) // width
    blocks = (count_items + ITEMS - 1) // ITEMS
    groups = (rows + lanes - 1) // lanes
    part = PART_ROWS // lanes
    parts = (groups + part - 1) // part
    mine = slot * 4 * rows
    span = stretch * ITEMS
    marked = len(excluded) > 0
    marks = np.empty(min(groups, part) * span if marked else 0, dtype=np.int32)
    tile = scratch(ITEMS * lanes)
    sides = scratch(5 * lanes)
    sides[:] = _ZERO
    fault = _ZERO
    while True:
        piece = next_task(queue)
        if piece >= (blocks + stretch - 1) // stretch * parts:
            break
        block0 = piece // parts * stretch
        group0 = piece % parts * part
        group_end = min(groups, group0 + part)
        if marked:
            mark_lanes(
                marks, span, lanes, group0 * lanes, min(rows, group_end * lanes), block0 * ITEMS,
                min(count_items, (block0 + stretch) * ITEMS), targets, excluded, offsets,
            )  # fmt: skip
        for block in range(block0, min(blocks, block0 + stretch)):
            item0 = block * ITEMS
            size = min(ITEMS, count_items - item0)
            for group in range(group0, group_end):
                row0 = group * lanes
                product(
                    tile, 0, lanes, items, item0 * width, width, 1,
                    columns, group * padded * lanes, lanes, size, lanes, width, False,
                )  # fmt: skip
                count = min(lanes, rows - row0)
                for lane in range(count):
                    sides[lane] = bars[row0 + lane]
                fault += count_tile(
                    tile, size, lanes, sides, marks, (group - group0) * span + (block - block0) * ITEMS
                )
                for side in range(4 if marked else 2):
                    for lane in range(count):
                        counts[mine + side * rows + row0 + lane] += np.int64(sides[(1 + side) * lanes + lane])
    if fault != _ZERO:  # NaN too
        faults[slot] = 1
