"""The compiled loop of ranks on the CPU: blocks of items times groups of rows, scored and counted in cache.

Scores lie transposed, items x lanes with one row of the batch per lane, so that the item table is read in
place. Every score is one chain of fused multiply-adds over d: it has the same bits in every tile, so a
target's score can be found beforehand and compared with its competitors'.

Legend: V items, d width (a multiple of LANES in the packed rows), `lanes` rows per group.
"""

import numpy as np

from recsys.kernels.ranking.cpu_pack import PackedRows
from recsys.kernels.ranking.cpu_rank_counts import count_tile
from recsys.kernels.ranking.cpu_rank_exclude import exclude_by_item
from recsys.kernels.ranking.cpu_rank_plan import BLOCK_V, PART_ROWS
from recsys.kernels.shared.vector import (
    Array,
    Number,
    compiled,
    next_task,
    product,
    scratch,
)

_ZERO = np.float32(0.0)


@compiled
def rank_worker(
    slot: Number,
    queue: Array,
    batch: PackedRows,
    stretch: Number,
    thresholds: Array,
    targets: Array,
    excluded: Array,
    offsets: Array,
    counts: Array,
    faults: Array,
) -> None:
    """Count scores above and level with each row's threshold, among all items and among the excluded ones.

    A task is `stretch` tiles of items and `PART_ROWS` rows. `excluded` and `offsets`: see `exclude_by_row`;
    both are empty where nothing is. `counts` is (slot, 4, row): above, level, above and excluded, level and
    excluded.
    """
    rows, lanes, _, padded, columns, items, width = batch
    count_items = len(items) // width
    blocks = (count_items + BLOCK_V - 1) // BLOCK_V
    groups = (rows + lanes - 1) // lanes
    part = PART_ROWS // lanes
    parts = (groups + part - 1) // part
    mine = slot * 4 * rows
    span = stretch * BLOCK_V
    any_excluded = len(excluded) > 0
    excluded_bits = np.empty(min(groups, part) * span if any_excluded else 0, dtype=np.int32)
    tile = scratch(BLOCK_V * lanes)
    sides = scratch(5 * lanes)
    sides[:] = _ZERO
    fault = _ZERO
    while True:
        task = next_task(queue)
        if task >= (blocks + stretch - 1) // stretch * parts:
            break
        block0 = task // parts * stretch
        group0 = task % parts * part
        group_end = min(groups, group0 + part)
        if any_excluded:
            exclude_by_item(
                excluded_bits, span, lanes, group0 * lanes, min(rows, group_end * lanes), block0 * BLOCK_V,
                min(count_items, (block0 + stretch) * BLOCK_V), targets, excluded, offsets,
            )  # fmt: skip
        for block in range(block0, min(blocks, block0 + stretch)):
            item0 = block * BLOCK_V
            size = min(BLOCK_V, count_items - item0)
            for group in range(group0, group_end):
                row0 = group * lanes
                product(
                    tile, 0, lanes, items, item0 * width, width, 1,
                    columns, group * padded * lanes, lanes, size, lanes, width, False,
                )  # fmt: skip
                count = min(lanes, rows - row0)
                for lane in range(count):
                    sides[lane] = thresholds[row0 + lane]
                fault += count_tile(
                    tile,
                    size,
                    lanes,
                    sides,
                    excluded_bits,
                    (group - group0) * span + (block - block0) * BLOCK_V,
                )
                for side in range(4 if any_excluded else 2):
                    for lane in range(count):
                        counts[mine + side * rows + row0 + lane] += np.int64(sides[(1 + side) * lanes + lane])
    if fault != _ZERO:  # NaN too
        faults[slot] = 1
