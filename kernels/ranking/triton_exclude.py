# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Which cells of a tile of scores are excluded, from a sorted list of (tile, cell) pairs.

The pairs of a batch are sorted by tile (`segments`: row block * tiles of the catalog + tile), so that a
program finds its first one by bisection and meets the others in order; a tile without any costs one
comparison.
`places` holds the cell, row * BLOCK_V + item within the tile, or -1 for a pair that excludes nothing.
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
def excluded_cells(segments, places, entries, segment, at, BLOCK_B: tl.constexpr, BLOCK_V: tl.constexpr):
    """A (ROWS, BLOCK_V) mask of the cells that the segment from place `at` excludes, and the place after it.

    Pairs become one-hot rows and columns, whose product counts them per cell: 32 pairs cost about as much as
    32 of the d columns of the scores, however many the tile has.
    """
    hits = tl.zeros((BLOCK_B, BLOCK_V), tl.float32)
    more = at >= 0
    while more:
        entry = at + tl.arange(0, CHUNK)
        listed = entry < entries
        mine = listed & (tl.load(segments + entry, mask=listed, other=-1) == segment)
        place = tl.load(places + entry, mask=mine, other=-1)
        excludes = place >= 0
        in_row = (tl.arange(0, BLOCK_B)[:, None] == (place // BLOCK_V)[None, :]) & excludes[None, :]
        in_column = (place % BLOCK_V)[:, None] == tl.arange(0, BLOCK_V)[None, :]
        hits = tl.dot(in_row.to(tl.float16), in_column.to(tl.float16), hits, input_precision="ieee")
        found = tl.sum(mine.to(tl.int32), 0)
        at += found
        more = found == CHUNK
    return hits > 0.0, at


@triton.jit
def excluded_items(segments, places, entries, segment, own, at, BLOCK_V: tl.constexpr):
    """A (BLOCK_V,) mask of what the segment from place `at` excludes for its row `own` alone."""
    hits = tl.zeros((BLOCK_V,), tl.int32)
    more = at < entries
    while more:
        entry = at + tl.arange(0, CHUNK)
        listed = entry < entries
        mine = listed & (tl.load(segments + entry, mask=listed, other=-1) == segment)
        place = tl.load(places + entry, mask=mine, other=-1)
        excludes = (place >= 0) & (place // BLOCK_V == own)
        match = ((place % BLOCK_V)[:, None] == tl.arange(0, BLOCK_V)[None, :]) & excludes[:, None]
        hits += tl.sum(match.to(tl.int32), 0)
        found = tl.sum(mine.to(tl.int32), 0)
        at += found
        more = found == CHUNK
    return hits > 0
