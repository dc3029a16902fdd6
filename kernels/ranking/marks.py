"""Excluded items as bits beside the tiles of scores, and how a sweep is cut into pieces.

Marking takes ids in any order and with repeats, which sorted lists would have to be freed of first.
"""

import numpy as np

from recsys.kernels.shared.threads import threads_for
from recsys.kernels.shared.vector import Array, Number, compiled

ITEMS = 256
"""Items per tile, a multiple of 64: its scores take 32 KiB with 32 rows."""

WORDS = ITEMS // 64

PART_ROWS = 1024
"""Most rows per piece of work."""

STRETCH = 32
"""Most tiles of items per piece: with `PART_ROWS` rows their bits take 1 MiB."""


def plan_pieces(rows: int, items: int, steps: int) -> tuple[int, int]:
    """Choose the threads and the tiles of items per piece, for `steps` elementary steps of work."""
    tiles, parts = -(-items // ITEMS), -(-rows // PART_ROWS)
    threads = threads_for(tiles * parts, steps)
    # Four pieces per thread, so that a late one delays nobody; one thread takes the longest.
    stretch = STRETCH if threads == 1 else -(-tiles * parts // (4 * threads))
    return threads, min(STRETCH, stretch, tiles)


@compiled
def mark_rows(
    bits: Array, span: Number, first: Number, end: Number, low: Number, high: Number,
    targets: Array, excluded: Array, offsets: Array
) -> None:  # fmt: skip
    """Set, for rows `first` to `end`, bits of the items from `low` to `high` that they exclude.

    A row has `span` int64 words, of a bit per item. Row r excludes excluded[offsets[r] : offsets[r + 1]], but
    never its target.
    """
    bits[:] = 0
    for row in range(first, end):
        start = (row - first) * span
        for at in range(offsets[row], offsets[row + 1]):
            place = excluded[at] - low
            if 0 <= place < high - low:
                bits[start + (place >> 6)] |= np.int64(1) << (place & 63)
        place = targets[row] - low
        if 0 <= place < high - low:
            bits[start + (place >> 6)] &= ~(np.int64(1) << (place & 63))


@compiled
def mark_lanes(
    marks: Array, span: Number, lanes: Number, first: Number, end: Number, low: Number, high: Number,
    targets: Array, excluded: Array, offsets: Array
) -> None:  # fmt: skip
    """The same in int32 words of a bit per row: `lanes` rows, at most 32, share a word per item."""
    marks[:] = 0
    for row in range(first, end):
        start = (row - first) // lanes * span
        bit = np.int32(1) << np.int32((row - first) % lanes)
        for at in range(offsets[row], offsets[row + 1]):
            place = excluded[at] - low
            if 0 <= place < high - low:
                marks[start + place] |= bit
        place = targets[row] - low
        if 0 <= place < high - low:
            marks[start + place] &= ~bit
