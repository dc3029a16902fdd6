# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Top-k kernels: the best score of every tile, then all scores of the few tiles that can hold an answer.

The k best items of a row lie in its k best tiles, tiles ordered by their best score and, if equal, by place:
an item in a later tile has k tiles before it, and with each a better item. Scores and places are packed in
one int64 key, so that equal scores are ordered by id, lower first, and no two keys are equal.

Legend: B rows, `count` places (items of the catalog, or entries of a list of ids), d width.
"""

import triton
import triton.language as tl

from recsys.kernels.device_tiles import load_tile
from recsys.kernels.ranking.triton_barred import barred_cells, first_at_least
from recsys.kernels.ranking.triton_rank import score_tile

NOTHING = tl.constexpr(-(2**63))
"""The key of a barred place: below that of any score."""


@triton.jit
def pack(score, place):
    """A key that orders by score, falling, then by place (below 2^32), rising. -0.0 counts as 0.0."""
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    # Negative floats fall with their bits: all but the sign turned round, integers order them.
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (4294967295 - place.to(tl.int64))


@triton.jit
def place_of(key):
    """The place that `pack` put into a key."""
    return 4294967295 - (key & 4294967295)


@triton.jit
def listed_items(catalog, place, count):
    """The item ids at some places, and which of them may be returned: a list holds -1 where it may not."""
    real = place < count
    if catalog is None:
        return place, real
    else:
        item = tl.load(catalog + place, mask=real, other=-1)
        return item, item >= 0


@triton.jit(do_not_specialize=["rows", "count", "span", "row_blocks", "entries"])
def tile_keys(
    hidden,
    item_weight,
    catalog,
    segments,
    places,
    keys,
    faults,
    rows,
    count,
    span,
    row_blocks,
    entries,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    ITEMS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVERY: tl.constexpr,
):
    """Key the best score of each tile of one span, (B, tiles), or with EVERY all scores, (B, count).

    A tile's key carries the tile's number for a place. faults as in `count_scores`.
    """
    program = tl.program_id(0)
    row_block = program % row_blocks
    row = row_block * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    begin = program // row_blocks * span
    local = tl.arange(0, ITEMS)
    h = load_tile(hidden, row, inside, 0, WIDTH, DEPTH)
    fault = tl.zeros((ROWS,), tl.float32)
    tiles = tl.cdiv(count, ITEMS)
    if segments is not None:
        at = first_at_least(segments, entries, row_block * tiles.to(tl.int64) + begin // ITEMS)
        upcoming = tl.load(segments + at, mask=at < entries, other=-1)
    for start in range(begin, tl.minimum(begin + span, count), ITEMS):
        place = start + local
        item, real = listed_items(catalog, place, count)
        z = score_tile(h, hidden, row, inside, item_weight, item, real, WIDTH, ROWS, ITEMS, DEPTH)
        fault += tl.sum(z * 0.0, 1)
        z = tl.where(real[None, :], z, float("-inf"))
        if segments is not None:
            segment = row_block * tiles.to(tl.int64) + start // ITEMS
            if upcoming == segment:
                barred, at = barred_cells(segments, places, entries, segment, at, ROWS, ITEMS)
                z = tl.where(barred, float("-inf"), z)
                upcoming = tl.load(segments + at, mask=at < entries, other=-1)
        if EVERY:
            key = tl.where(z > float("-inf"), pack(z, place[None, :]), NOTHING)
            cell = row.to(tl.int64)[:, None] * count + place[None, :]
            tl.store(keys + cell, key, mask=inside[:, None] & (place < count)[None, :])
        else:
            tile = start // ITEMS
            key = pack(tl.max(z, 1), row * 0 + tile)
            tl.store(keys + row.to(tl.int64) * tiles + tile, key, mask=inside)
    tl.store(faults + program, tl.sum(fault, 0))


@triton.jit(do_not_specialize=["rows", "count", "picks", "entries"])
def picked_keys(
    hidden,
    item_weight,
    catalog,
    segments,
    places,
    picked,
    keys,
    rows,
    count,
    picks,
    entries,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    ITEMS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Key all scores of one row in one of its picked tiles: picked (B, picks) to keys (B, picks, ITEMS).

    The whole block's tile is scored again and one row taken out of it, for the bits to be the same.
    """
    program = tl.program_id(0)
    own = program // picks
    row_block = own // ROWS
    row = row_block * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    tile = place_of(tl.load(picked + program)).to(tl.int32)
    place = tile * ITEMS + tl.arange(0, ITEMS)
    item, real = listed_items(catalog, place, count)
    h = load_tile(hidden, row, inside, 0, WIDTH, DEPTH)
    z = score_tile(h, hidden, row, inside, item_weight, item, real, WIDTH, ROWS, ITEMS, DEPTH)
    if segments is not None:
        segment = row_block * tl.cdiv(count, ITEMS).to(tl.int64) + tile
        at = first_at_least(segments, entries, segment)
        if tl.load(segments + at, mask=at < entries, other=-1) == segment:
            barred, _ = barred_cells(segments, places, entries, segment, at, ROWS, ITEMS)
            z = tl.where(barred, float("-inf"), z)
    score = tl.sum(tl.where((row == own)[:, None], z, 0.0), 0)
    key = tl.where(real & (score > float("-inf")), pack(score, place), NOTHING)
    tl.store(keys + program.to(tl.int64) * ITEMS + tl.arange(0, ITEMS), key)
