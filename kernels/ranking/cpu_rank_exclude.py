"""Excluded items as bits beside the tiles of scores.

Setting bits takes ids in any order and with repeats, which sorted lists would have to be freed of first.
"""

import numpy as np

from recsys.kernels.shared.vector import Array, Number, compiled


@compiled
def exclude_by_row(
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
def exclude_by_item(
    words: Array, span: Number, lanes: Number, first: Number, end: Number, low: Number, high: Number,
    targets: Array, excluded: Array, offsets: Array
) -> None:  # fmt: skip
    """The same in int32 words of a bit per row: `lanes` rows, at most 32, share a word per item."""
    words[:] = 0
    for row in range(first, end):
        start = (row - first) // lanes * span
        bit = np.int32(1) << np.int32((row - first) % lanes)
        for at in range(offsets[row], offsets[row + 1]):
            place = excluded[at] - low
            if 0 <= place < high - low:
                words[start + place] |= bit
        place = targets[row] - low
        if 0 <= place < high - low:
            words[start + place] &= ~bit
