"""Groups of rows laid as columns, as the register tiles of ranking read them.

Legend: d width, a multiple of LANES in the packed rows; `lanes` rows per group.
"""

from typing import NamedTuple

import numpy as np

from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    compiled,
    next_task,
    product,
    splat,
    store,
    transpose_square,
)

_ZERO = np.float32(0.0)


class PackedRows(NamedTuple):
    """A batch of rows and the catalog, as the workers of ranking take them.

    Attributes:
        count: B.
        lanes: rows of a group, LANES or PANEL.
        flat: (B padded,) float32, the rows as they are with zeros up to `padded` elements.
        padded: d rounded up to whole vectors.
        columns: (groups, padded, lanes) float32, written by `pack_worker`.
        items: (V d,) float32.
        width: d.
    """

    count: Number
    lanes: Number
    flat: Array
    padded: Number
    columns: Array
    items: Array
    width: Number


@compiled
def pack_worker(slot: Number, queue: Array, batch: PackedRows, targets: Array, thresholds: Array) -> None:
    """Lay groups of rows as columns (group, d, lane) and find the targets' scores, if there are targets."""
    rows, lanes, hidden, padded, columns, items, width = batch
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
                    thresholds[row] = row_scores[row - row0 - lane]
