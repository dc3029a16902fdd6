# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Which cells of a tile of scores are barred, from a sorted list of (tile, cell) pairs.

The pairs of a batch are sorted by tile (`segments`: row block * tiles of the catalog + tile), so that a
program finds its first one by bisection and meets the others in order; a tile without any costs one
comparison.
`places` holds the cell, row * ITEMS + item within the tile, or -1 for a pair that bars nothing.
"""

import triton
import triton.language as tl

CHUNK = tl.constexpr(32)


@triton.jit
def first_at_least(sorted_keys, count, key):
    """The first place of an ascending array whose value is not below `key`, or `count`."""
    low = count * 0
    high = count
    while low < high:
        middle = low + (high - low) // 2
        if tl.load(sorted_keys + middle) < key:
            low = middle + 1
        else:
            high = middle
    return low


@triton.jit
def barred_cells(segments, places, entries, segment, at, ROWS: tl.constexpr, ITEMS: tl.constexpr):
    """A (ROWS, ITEMS) mask of the cells that the segment from place `at` bars, and the place after it.

    Pairs become one-hot rows and columns, whose product counts them per cell: 32 pairs cost about as much as
    32 of the d columns of the scores, however many the tile has.
    """
    hits = tl.zeros((ROWS, ITEMS), tl.float32)
    more = at >= 0
    while more:
        entry = at + tl.arange(0, CHUNK)
        listed = entry < entries
        mine = listed & (tl.load(segments + entry, mask=listed, other=-1) == segment)
        place = tl.load(places + entry, mask=mine, other=-1)
        bars = place >= 0
        in_row = (tl.arange(0, ROWS)[:, None] == (place // ITEMS)[None, :]) & bars[None, :]
        in_column = (place % ITEMS)[:, None] == tl.arange(0, ITEMS)[None, :]
        hits = tl.dot(in_row.to(tl.float16), in_column.to(tl.float16), hits, input_precision="ieee")
        found = tl.sum(mine.to(tl.int32), 0)
        at += found
        more = found == CHUNK
    return hits > 0.0, at


@triton.jit
def barred_items(segments, places, entries, segment, own, at, ITEMS: tl.constexpr):
    """A (ITEMS,) mask of what the segment from place `at` bars for its row `own` alone."""
    hits = tl.zeros((ITEMS,), tl.int32)
    more = at < entries
    while more:
        entry = at + tl.arange(0, CHUNK)
        listed = entry < entries
        mine = listed & (tl.load(segments + entry, mask=listed, other=-1) == segment)
        place = tl.load(places + entry, mask=mine, other=-1)
        bars = (place >= 0) & (place // ITEMS == own)
        match = ((place % ITEMS)[:, None] == tl.arange(0, ITEMS)[None, :]) & bars[:, None]
        hits += tl.sum(match.to(tl.int32), 0)
        found = tl.sum(mine.to(tl.int32), 0)
        at += found
        more = found == CHUNK
    return hits > 0
