# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Rank kernels: the targets' scores out of the tiles they lie in, then counts of the scores above and level.

Both kernels make a tile of scores by the same product of the same rows and items, so that a target's score
has the bits of its own place in the count.

Legend: B rows, V items, d width. A tile is `ITEMS` items, counted from item 0, for `ROWS` rows.
"""

import triton
import triton.language as tl

from recsys.kernels.ranking.triton_barred import barred_cells, first_at_least
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
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    ITEMS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """(ROWS, ITEMS) scores; `h` holds the rows where one slice of DEPTH columns is all. 0 outside."""
    if DEPTH >= WIDTH:
        w = load_tile(item_weight, item, real, 0, WIDTH, DEPTH)
        return tl.dot(h, tl.trans(w), input_precision="ieee")
    else:
        return products(hidden, row, inside, item_weight, item, real, ROWS, ITEMS, WIDTH, DEPTH)


@triton.jit(do_not_specialize=["rows", "items", "span", "row_blocks"])
def score_targets(
    hidden,
    item_weight,
    targets,
    bars,
    rows,
    items,
    span,
    row_blocks,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    ITEMS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Write the target's score of each row of one block whose target lies in one span of items.

    Tiles without a target are passed over. `span`: items of a program, a multiple of ITEMS.
    """
    program = tl.program_id(0)
    row = program % row_blocks * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    target = tl.load(targets + row, mask=inside, other=-1)
    known = (target >= 0) & (target < items)
    target = tl.where(known, target, -1).to(tl.int32)
    home = tl.where(known, target // ITEMS * ITEMS, NEVER)  # first item of the target's tile
    begin = program // row_blocks * span
    end = tl.minimum(begin + span, items)
    local = tl.arange(0, ITEMS)
    bar = tl.zeros((ROWS,), tl.float32)
    h = load_tile(hidden, row, inside, 0, WIDTH, DEPTH)
    start = tl.min(tl.where(home >= begin, home, NEVER), 0)
    while start < end:
        item = start + local
        z = score_tile(h, hidden, row, inside, item_weight, item, item < items, WIDTH, ROWS, ITEMS, DEPTH)
        match = (target - start)[:, None] == local[None, :]
        bar = tl.where(home == start, tl.sum(tl.where(match, z, 0.0), 1), bar)
        start = tl.min(tl.where(home > start, home, NEVER), 0)
    tl.store(bars + row, bar, mask=inside & (home >= begin) & (home < end))


@triton.jit(do_not_specialize=["rows", "items", "span", "row_blocks", "entries", "spans"])
def count_scores(
    hidden,
    item_weight,
    bars,
    segments,
    places,
    counts,
    faults,
    rows,
    items,
    span,
    row_blocks,
    entries,
    spans,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    ITEMS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Count the scores of one span of items above and level with each row's bar.

    counts (4, spans, B) int32: above, level, and both among the barred items (zeros without `segments`).
    faults (programs,): not 0 where a score was not finite. Barred items as in `triton_barred`.
    """
    program = tl.program_id(0)
    row_block = program % row_blocks
    row = row_block * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    bar = tl.load(bars + row, mask=inside, other=0.0)
    begin = program // row_blocks * span
    end = tl.minimum(begin + span, items)
    local = tl.arange(0, ITEMS)
    h = load_tile(hidden, row, inside, 0, WIDTH, DEPTH)
    above = tl.zeros((ROWS,), tl.int32)
    level = tl.zeros((ROWS,), tl.int32)
    above_barred = tl.zeros((ROWS,), tl.int32)
    level_barred = tl.zeros((ROWS,), tl.int32)
    fault = tl.zeros((ROWS,), tl.float32)
    tiles = tl.cdiv(items, ITEMS)
    if segments is not None:
        at = first_at_least(segments, entries, row_block * tiles.to(tl.int64) + begin // ITEMS)
        upcoming = tl.load(segments + at, mask=at < entries, other=-1)
    for start in range(begin, end, ITEMS):
        item = start + local
        z = score_tile(h, hidden, row, inside, item_weight, item, item < items, WIDTH, ROWS, ITEMS, DEPTH)
        fault += tl.sum(z * 0.0, 1)
        if start + ITEMS > items:
            z = tl.where((local < items - start)[None, :], z, float("-inf"))
        higher = z > bar[:, None]
        equal = z == bar[:, None]
        above += tl.sum(higher.to(tl.int32), 1)
        level += tl.sum(equal.to(tl.int32), 1)
        if segments is not None:
            segment = row_block * tiles.to(tl.int64) + start // ITEMS
            if upcoming == segment:
                barred, at = barred_cells(segments, places, entries, segment, at, ROWS, ITEMS)
                above_barred += tl.sum((higher & barred).to(tl.int32), 1)
                level_barred += tl.sum((equal & barred).to(tl.int32), 1)
                upcoming = tl.load(segments + at, mask=at < entries, other=-1)
    stride = rows.to(tl.int64)
    cell = program // row_blocks * stride + row
    tl.store(counts + cell, above, mask=inside)
    tl.store(counts + spans * stride + cell, level, mask=inside)
    tl.store(counts + 2 * spans * stride + cell, above_barred, mask=inside)
    tl.store(counts + 3 * spans * stride + cell, level_barred, mask=inside)
    tl.store(faults + program, tl.sum(fault, 0))
