# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Rank kernels: the targets' scores out of the tiles they lie in, then counts of the scores above and level.

Both kernels make a tile of scores by the same product of the same rows and items, so that a target's score
has the bits of its own place in the count.

Legend: B rows, V items, d width. A tile is `BLOCK_V` items, counted from item 0, for `BLOCK_B` rows.
"""

import triton
import triton.language as tl

from recsys.kernels.ranking.triton_exclude import excluded_cells, first_at_least
from recsys.kernels.shared.triton_tiles import load_tile, products

NEVER = tl.constexpr(2**31 - 1)


@triton.jit
def score_tile(
    h,
    hidden,
    row,
    inside,
    item_weight,
    item,
    real,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """(ROWS, BLOCK_V) scores; `h` holds the rows where one slice of BLOCK_D columns is all. 0 outside."""
    if BLOCK_D >= D:
        w = load_tile(item_weight, item, real, 0, D, BLOCK_D)
        return tl.dot(h, tl.trans(w), input_precision="ieee")
    else:
        return products(hidden, row, inside, item_weight, item, real, BLOCK_B, BLOCK_V, D, BLOCK_D)


@triton.jit(do_not_specialize=["B", "V", "span", "row_blocks"])
def score_targets(
    hidden,
    item_weight,
    targets,
    thresholds,
    B,
    V,
    span,
    row_blocks,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write the target's score of each row of one block whose target lies in one span of items.

    Tiles without a target are passed over. `span`: items of a program, a multiple of BLOCK_V.
    """
    program = tl.program_id(0)
    row = program % row_blocks * BLOCK_B + tl.arange(0, BLOCK_B)
    inside = row < B
    target = tl.load(targets + row, mask=inside, other=-1)
    known = (target >= 0) & (target < V)
    target = tl.where(known, target, -1).to(tl.int32)
    home = tl.where(known, target // BLOCK_V * BLOCK_V, NEVER)  # first item of the target's tile
    begin = program // row_blocks * span
    end = tl.minimum(begin + span, V)
    local = tl.arange(0, BLOCK_V)
    threshold = tl.zeros((BLOCK_B,), tl.float32)
    h = load_tile(hidden, row, inside, 0, D, BLOCK_D)
    start = tl.min(tl.where(home >= begin, home, NEVER), 0)
    while start < end:
        item = start + local
        z = score_tile(h, hidden, row, inside, item_weight, item, item < V, D, BLOCK_B, BLOCK_V, BLOCK_D)
        match = (target - start)[:, None] == local[None, :]
        threshold = tl.where(home == start, tl.sum(tl.where(match, z, 0.0), 1), threshold)
        start = tl.min(tl.where(home > start, home, NEVER), 0)
    tl.store(thresholds + row, threshold, mask=inside & (home >= begin) & (home < end))


@triton.jit(do_not_specialize=["B", "V", "span", "row_blocks", "entries", "spans"])
def count_scores(
    hidden,
    item_weight,
    thresholds,
    segments,
    places,
    counts,
    faults,
    B,
    V,
    span,
    row_blocks,
    entries,
    spans,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Count the scores of one span of items above and level with each row's threshold.

    counts (4, spans, B) int32: above, level, and both among the excluded items (zeros without `segments`).
    faults (programs,): not 0 where a score was not finite. Excluded items as in `triton_exclude`.
    """
    program = tl.program_id(0)
    row_block = program % row_blocks
    row = row_block * BLOCK_B + tl.arange(0, BLOCK_B)
    inside = row < B
    threshold = tl.load(thresholds + row, mask=inside, other=0.0)
    begin = program // row_blocks * span
    end = tl.minimum(begin + span, V)
    local = tl.arange(0, BLOCK_V)
    h = load_tile(hidden, row, inside, 0, D, BLOCK_D)
    above = tl.zeros((BLOCK_B,), tl.int32)
    level = tl.zeros((BLOCK_B,), tl.int32)
    above_excluded = tl.zeros((BLOCK_B,), tl.int32)
    level_excluded = tl.zeros((BLOCK_B,), tl.int32)
    fault = tl.zeros((BLOCK_B,), tl.float32)
    tiles = tl.cdiv(V, BLOCK_V)
    if segments is not None:
        at = first_at_least(segments, entries, row_block * tiles.to(tl.int64) + begin // BLOCK_V)
        upcoming = tl.load(segments + at, mask=at < entries, other=-1)
    for start in range(begin, end, BLOCK_V):
        item = start + local
        z = score_tile(h, hidden, row, inside, item_weight, item, item < V, D, BLOCK_B, BLOCK_V, BLOCK_D)
        fault += tl.sum(z * 0.0, 1)
        if start + BLOCK_V > V:
            z = tl.where((local < V - start)[None, :], z, float("-inf"))
        higher = z > threshold[:, None]
        equal = z == threshold[:, None]
        above += tl.sum(higher.to(tl.int32), 1)
        level += tl.sum(equal.to(tl.int32), 1)
        if segments is not None:
            segment = row_block * tiles.to(tl.int64) + start // BLOCK_V
            if upcoming == segment:
                excluded, at = excluded_cells(segments, places, entries, segment, at, BLOCK_B, BLOCK_V)
                above_excluded += tl.sum((higher & excluded).to(tl.int32), 1)
                level_excluded += tl.sum((equal & excluded).to(tl.int32), 1)
                upcoming = tl.load(segments + at, mask=at < entries, other=-1)
    stride = B.to(tl.int64)
    cell = program // row_blocks * stride + row
    tl.store(counts + cell, above, mask=inside)
    tl.store(counts + spans * stride + cell, level, mask=inside)
    tl.store(counts + 2 * spans * stride + cell, above_excluded, mask=inside)
    tl.store(counts + 3 * spans * stride + cell, level_excluded, mask=inside)
    tl.store(faults + program, tl.sum(fault, 0))
