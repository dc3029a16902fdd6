"""Exact ranks behind a low-precision prefilter: bfloat16 scores decide what is clear, exact ones the rest.

A block of items is rounded to bfloat16 and multiplied in tiles with groups of rows. Scores further from the
target's than `error_bound` (`cpu_rank_prefilter_bound` proves it) are counted; the others are scored again as
`cpu_rank` would have. Where these are many, or a score might overflow, the whole tile is: so every count is
that of `cpu_rank.rank_worker`.

Legend: V items, d width, K depth (d in whole steps of the tiles).
"""

from typing import NamedTuple

import numpy as np

from recsys.kernels.ranking.cpu_rank_counts import count_bits, count_tile
from recsys.kernels.ranking.cpu_rank_exclude import exclude_by_row
from recsys.kernels.ranking.cpu_rank_pairs import TOGETHER, score_pairs
from recsys.kernels.ranking.cpu_rank_plan import BLOCK_V, PART_ROWS, WORDS
from recsys.kernels.ranking.cpu_rank_prefilter_bound import error_bound, round_row
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    above_mask,
    compiled,
    load,
    lowest_bit,
    maximum,
    next_task,
    product,
    scratch,
    splat,
    transpose_square,
)
from recsys.kernels.shared.vector.tiles import (
    BLOCK,
    add_block_product,
    begin_tiles,
    clear_sums,
    end_tiles,
    narrow_scratch,
    store_sums,
)

PART = PART_ROWS // BLOCK
"""Groups of rows per task: enough to make up for rounding the items."""

_ROW = BLOCK_V + 16  # rows of scores a power of two apart would share their places in the cache
_DOUBTFUL = 400
"""Scores in doubt from which on the whole tile costs less."""

_EVERY = (1 << LANES) - 1
_ZERO = np.float32(0.0)
_SAFE = np.float32(1e38)
"""Bound of |h| |w| below which no sum on the way to a score can overflow."""


class RoundedRows(NamedTuple):
    """A batch of rows, rounded as well, and the catalog.

    Attributes:
        count: B.
        hidden: (B padded,) float32 rows, each with zeros up to `padded` elements.
        padded: a multiple of LANES.
        depth: K, d rounded up to whole steps of the tiles.
        rounded: (groups BLOCK, K) bfloat16 as uint16, written by `round_rows_worker`, as the next two.
        norms: (B, 2) float32, H and A of each row.
        thresholds: (B,) float32 scores of the targets.
        items: (V d,) float32.
        width: d.
        targets: (B,) int64.
    """

    count: Number
    hidden: Array
    padded: Number
    depth: Number
    rounded: Array
    norms: Array
    thresholds: Array
    items: Array
    width: Number
    targets: Array


@compiled
def round_rows_worker(
    slot: Number,
    queue: Array,
    batch: RoundedRows,
) -> None:
    """Round the rows, in groups of BLOCK (rows beyond the last are zero), and score their targets."""
    rows, hidden, padded, depth, rounded, norms, thresholds, items, width, targets = batch
    groups = (rows + BLOCK - 1) // BLOCK
    line = scratch(LANES)
    rows_at = np.empty(BLOCK, dtype=np.int64)
    items_at = np.empty(BLOCK, dtype=np.int64)
    scores = np.empty(BLOCK, dtype=np.float32)
    while True:
        group = next_task(queue)
        if group >= groups:
            return
        first = group * BLOCK
        count = min(BLOCK, rows - first)
        for place in range(count):
            row = first + place
            round_row(rounded, row * depth, hidden, row * padded, padded, depth, line, norms, 2 * row)
            rows_at[place] = row * padded
            items_at[place] = targets[row] * width
        rounded[(first + count) * depth : (first + BLOCK) * depth] = 0
        score_pairs(scores, count, hidden, rows_at, items, items_at, width)
        thresholds[first : first + count] = scores[:count]


@compiled
def _round_items(
    packed: Array, items: Array, item0: Number, size: Number, width: Number, depth: Number,
    line: Array, lines: Array, norms: Array
) -> tuple[Number, Number]:  # fmt: skip
    """Pack a block of items as a right side of tiles; return the largest norms of items and their losses.

    `packed` holds, for each BLOCK items, pairs of elements x items. `line` (K,) is for
    `round_row`, `lines` (LANES, K) scratch.
    """
    largest, most_lost = _ZERO, _ZERO
    half = depth // 2
    words, line_words = packed.view(np.float32), lines.view(np.float32)  # pairs of elements
    for first in range(0, BLOCK_V, LANES):
        count = min(LANES, size - first)
        for place in range(max(count, 0)):
            at = (item0 + first + place) * width
            round_row(lines, place * depth, items, at, width, depth, line, norms, 0)
            largest, most_lost = max(largest, norms[0]), max(most_lost, norms[1])
        if count <= 0 and first % BLOCK == 0:
            break  # such a block is not multiplied
        to = first // BLOCK * BLOCK * half + first % BLOCK
        for pair in range(0, half, LANES):
            # A count below 1 would read nothing: what is left of earlier items stays masked.
            transpose_square(words, to + pair * BLOCK, BLOCK, line_words, pair, half, max(count, 1))
    return largest, most_lost


@compiled
def _multiply(tile: Array, rounded: Array, first: Number, packed: Array, size: Number, depth: Number) -> None:
    """Score BLOCK rows and `size` items roughly: tile[row, item], rows _ROW apart."""
    for block in range(0, size, BLOCK):
        clear_sums()
        for k in range(0, depth, BLOCK):
            at = block * depth + k * BLOCK
            add_block_product(rounded, first * depth + k, depth, packed, at, 2 * BLOCK)
        store_sums(tile, block, _ROW)


@compiled
def _sort_out(
    tile: Array, size: Number, depth: Number, row0: Number, count: Number, thresholds: Array,
    row_norms: Array, item_norm: Number, item_lost: Number, bits: Array, first_word: Number, span: Number,
    gains: Array, doubts: Array
) -> Number:  # fmt: skip
    """Count the clear scores, above to gains[lane], above and excluded to gains[BLOCK + lane]; list others.

    Returns how many are in `doubts`; more than `_DOUBTFUL`, and it has given up.
    """
    doubtful = 0
    for lane in range(count):
        row = row0 + lane
        threshold = thresholds[row]
        around = error_bound(
            row_norms[2 * row], row_norms[2 * row + 1], item_norm, item_lost, depth, threshold
        )
        over, over_excluded = 0, 0
        high, low = splat(threshold + around), splat(threshold - around)
        for word in range((size + 63) // 64):
            at = lane * _ROW + 64 * word
            left = size - 64 * word
            first, second = load(tile, at), load(tile, at + LANES)
            third, fourth = load(tile, at + 2 * LANES), load(tile, at + 3 * LANES)
            # What lies past the last item may be NaN and hide another.
            best = maximum(maximum(first, second), maximum(third, fourth))
            if left >= 64 and above_mask(low, best) == _EVERY:
                continue
            clear = above_mask(first, high) | above_mask(second, high) << LANES
            clear |= above_mask(third, high) << (2 * LANES) | above_mask(fourth, high) << (3 * LANES)
            less = above_mask(low, first) | above_mask(low, second) << LANES
            less |= above_mask(low, third) << (2 * LANES) | above_mask(low, fourth) << (3 * LANES)
            doubt = ~(clear | less)  # NaN too
            if left < 64:
                there = (np.int64(1) << left) - 1
                clear &= there
                doubt &= there
            over += count_bits(clear)
            over_excluded += count_bits(clear & bits[first_word + lane * span + word])
            while doubt != 0:
                doubts[doubtful] = lane * BLOCK_V + 64 * word + lowest_bit(doubt)
                doubtful += 1
                doubt &= doubt - 1
            if doubtful > _DOUBTFUL:
                return doubtful
        gains[lane], gains[BLOCK + lane] = over, over_excluded
    return doubtful


@compiled
def _settle(
    doubts: Array, doubtful: Number, scores: Array, rows_at: Array, items_at: Array,
    row0: Number, hidden: Array, padded: Number, item0: Number, items: Array, width: Number,
    thresholds: Array, bits: Array, first_word: Number, span: Number,
    counts: Array, mine: Number, rows: Number
) -> None:  # fmt: skip
    """Score the doubtful pairs exactly and count them."""
    for place in range(doubtful):
        rows_at[place] = (row0 + doubts[place] // BLOCK_V) * padded
        items_at[place] = (item0 + doubts[place] % BLOCK_V) * width
    score_pairs(scores, doubtful, hidden, rows_at, items, items_at, width)
    for place in range(doubtful):
        lane, item = doubts[place] // BLOCK_V, doubts[place] % BLOCK_V
        over = np.int64(scores[place] > thresholds[row0 + lane])
        same = np.int64(scores[place] == thresholds[row0 + lane])
        excluded = bits[first_word + lane * span + (item >> 6)] >> (item & 63) & 1
        to = mine + row0 + lane
        counts[to] += over
        counts[to + rows] += same
        counts[to + 2 * rows] += over & excluded
        counts[to + 3 * rows] += same & excluded


@compiled
def _count_whole(
    whole: Array, columns: Array, sides: Array, row0: Number, count: Number, hidden: Array, padded: Number,
    item0: Number, size: Number, items: Array, width: Number,
    thresholds: Array, any_excluded: Number, no_bits: Array, bits: Array, first_word: Number, span: Number,
    counts: Array, mine: Number, rows: Number
) -> Number:  # fmt: skip
    """Score the whole tile exactly and count it; the result is 0 if all scores are finite."""
    columns[:] = _ZERO
    for half in range(0, count, LANES):
        for d in range(0, padded, LANES):
            transpose_square(
                columns, d * BLOCK + half, BLOCK, hidden, (row0 + half) * padded + d, padded,
                min(LANES, count - half),
            )  # fmt: skip
    product(whole, 0, BLOCK, items, item0 * width, width, 1, columns, 0, BLOCK, size, BLOCK, width, False)
    sides[:BLOCK] = _ZERO
    sides[:count] = thresholds[row0 : row0 + count]
    fault = count_tile(whole, size, BLOCK, sides, no_bits, 0)
    for lane in range(count):
        over, same = 0, 0
        for word in range((size + 63) // 64 if any_excluded else 0):
            mask = bits[first_word + lane * span + word]
            while mask != 0:
                score = whole[(64 * word + lowest_bit(mask)) * BLOCK + lane]
                over += score > sides[lane]
                same += score == sides[lane]
                mask &= mask - 1
        to = mine + row0 + lane
        counts[to] += np.int64(sides[BLOCK + lane])
        counts[to + rows] += np.int64(sides[2 * BLOCK + lane])
        counts[to + 2 * rows] += over
        counts[to + 3 * rows] += same
    return fault


@compiled
def prefilter_worker(
    slot: Number,
    queue: Array,
    batch: RoundedRows,
    stretch: Number,
    excluded: Array,
    offsets: Array,
    counts: Array,
    faults: Array,
) -> None:
    """Count scores above and level with each row's threshold, among all items and among the excluded ones.

    A task is `PART` groups of rows and `stretch` blocks of items. Row r excludes the items
    excluded[offsets[r] : offsets[r + 1]], in any order and with repeats, but never its target; both are empty
    where nothing is excluded. `counts` is (slot, 4, row): above, level, above and excluded, level and
    excluded.
    """
    rows, hidden, padded, depth, rounded, row_norms, thresholds, items, width, targets = batch
    count_items = len(items) // width
    blocks = (count_items + BLOCK_V - 1) // BLOCK_V
    groups = (rows + BLOCK - 1) // BLOCK
    parts = (groups + PART - 1) // PART
    mine = slot * 4 * rows
    span = stretch * WORDS
    bits = np.zeros(min(groups, PART) * BLOCK * span, dtype=np.int64)
    packed = narrow_scratch(BLOCK_V * depth)
    lines = narrow_scratch(LANES * depth)
    line = scratch(LANES)
    norms = np.empty(2, dtype=np.float32)
    tile = scratch(BLOCK * _ROW)
    whole = scratch(BLOCK_V * BLOCK)
    columns = scratch(padded * BLOCK)
    sides = scratch(3 * BLOCK)
    no_bits = np.empty(0, dtype=np.int32)
    gains = np.empty(2 * BLOCK, dtype=np.int64)
    capacity = _DOUBTFUL + 64 + TOGETHER
    doubts = np.empty(capacity, dtype=np.int64)
    rows_at = np.empty(capacity, dtype=np.int64)
    items_at = np.empty(capacity, dtype=np.int64)
    scores = np.empty(capacity, dtype=np.float32)
    any_excluded = len(excluded) > 0
    fault = _ZERO
    before = begin_tiles()
    while True:
        task = next_task(queue)
        if task >= (blocks + stretch - 1) // stretch * parts:
            break
        block0 = task // parts * stretch
        group0 = task % parts * PART
        group_end = min(groups, group0 + PART)
        if any_excluded:
            exclude_by_row(
                bits, span, group0 * BLOCK, min(rows, group_end * BLOCK), block0 * BLOCK_V,
                min(count_items, (block0 + stretch) * BLOCK_V), targets, excluded, offsets,
            )  # fmt: skip
        for block in range(block0, min(blocks, block0 + stretch)):
            item0 = block * BLOCK_V
            size = min(BLOCK_V, count_items - item0)
            item_norm, item_lost = _round_items(packed, items, item0, size, width, depth, line, lines, norms)
            for group in range(group0, group_end):
                row0 = group * BLOCK
                count = min(BLOCK, rows - row0)
                first_word = (group - group0) * BLOCK * span + (block - block0) * WORDS
                safe = True
                for row in range(row0, row0 + count):
                    safe = safe and row_norms[2 * row] * item_norm < _SAFE
                doubtful = 0
                if safe:
                    _multiply(tile, rounded, row0, packed, size, depth)
                    doubtful = _sort_out(
                        tile, size, depth, row0, count, thresholds, row_norms, item_norm, item_lost,
                        bits, first_word, span, gains, doubts,
                    )  # fmt: skip
                if safe and doubtful <= _DOUBTFUL:
                    for lane in range(count):
                        counts[mine + row0 + lane] += gains[lane]
                        counts[mine + 2 * rows + row0 + lane] += gains[BLOCK + lane]
                    _settle(
                        doubts, doubtful, scores, rows_at, items_at, row0, hidden, padded, item0, items,
                        width, thresholds, bits, first_word, span, counts, mine, rows,
                    )  # fmt: skip
                else:
                    fault += _count_whole(
                        whole, columns, sides, row0, count, hidden, padded, item0, size, items, width,
                        thresholds, any_excluded, no_bits, bits, first_word, span, counts, mine, rows,
                    )  # fmt: skip
    end_tiles(before)
    if fault != _ZERO:  # NaN too
        faults[slot] = 1
