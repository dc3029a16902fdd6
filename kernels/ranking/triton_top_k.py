# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Top-k kernels: bounds of every tile of scores, true scores of the few tiles that can hold an answer.

The prefilter multiplies in tensor cores, at low precision, and keeps of each tile the most that a true score
in it can be. Errors of the operands in proportion to them give |rough - true| <= c |h| |w| (Cauchy-Schwarz),
so that a tile's bound is the greatest of its rough scores + c |h| |w|. The tiles with the greatest bounds are
scored in float32. Where the k-th best of these scores is above the least bound among the tiles picked, no
other tile matters and the answer is exact; rows where it is not are flagged, to be asked again.

What is returned comes from `score_picks` alone, so that no bit of it depends on the prefilter. Scores and
places are packed in one int64 key, which orders equal scores by id, lower first; no two keys are equal.

Legend: B rows, `V` places (items of the catalog, or entries of a list of ids), d width; a tile is BLOCK_V
places.
"""

import triton
import triton.language as tl

from recsys.kernels.ranking.triton_exclude import excluded_cells, excluded_items, first_at_least
from recsys.kernels.shared.triton_tiles import load_tile

NOTHING = tl.constexpr(-(2**63))
"""The key of a excluded place: below that of any score."""

_KEPT = tl.constexpr(-(2**13))
"""The bits of a float32 that a tensor core reads as TF32."""


TINY = tl.constexpr(2.0**-124)
"""More than a square, a product or a sum loses where float32 ends, or a tensor core takes it for 0."""


@triton.jit
def pack(score, place):
    """A key that orders by score, falling, then by place (below 2^32), rising. -0.0 counts as 0.0."""
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    # Negative floats fall with their bits: all but the sign turned round, integers order them.
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (4294967295 - place.to(tl.int64))


@triton.jit
def score_of(key):
    """The score that `pack` put into a key; -inf of NOTHING."""
    high = (key >> 32).to(tl.int32)
    score = tl.where(high < 0, high ^ 0x7FFFFFFF, high).to(tl.float32, bitcast=True)
    return tl.where(key == NOTHING, float("-inf"), score)


@triton.jit
def listed_items(catalog, place, V):
    """The item ids at some places, and which of them may be returned: a list holds -1 where it may not."""
    real = place < V
    if catalog is None:
        return place, real
    else:
        item = tl.load(catalog + place, mask=real, other=-1)
        return item, item >= 0


@triton.jit
def as_read(tile, TRUNCATE: tl.constexpr):
    """A float32 tile as a tensor core reads it: for the interpreter, whose products are in full precision."""
    if TRUNCATE:
        tile = (tile.to(tl.int32, bitcast=True) & _KEPT).to(tl.float32, bitcast=True)
    return tile


@triton.jit
def squares(tile):
    """(rows,) sums of squares of a tile's rows, in float32."""
    wide = tile.to(tl.float32)
    return tl.sum(wide * wide, 1)


@triton.jit(do_not_specialize=["B", "V", "span", "row_blocks", "entries"])
def prefilter_tiles(
    hidden,
    item_weight,
    catalog,
    segments,
    places,
    bounds,
    faults,
    relative_error,
    B,
    V,
    span,
    row_blocks,
    entries,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
    TRUNCATE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Bound the true scores of each tile of one span for one block of rows: bounds (B, tiles) float32.

    slack: c of |rough - true| <= c |h| |w|. A tile without a permitted place is bounded by -inf. faults
    (programs,) int32: 1 where a length is so great, or NaN, that scores might not be finite.
    """
    program = tl.program_id(0)
    row_block = program % row_blocks
    row = row_block * BLOCK_B + tl.arange(0, BLOCK_B)
    inside = row < B
    begin = program // row_blocks * span
    local = tl.arange(0, BLOCK_V)
    h = load_tile(hidden, row, inside, 0, D, BLOCK_D)
    reach = squares(h)
    for first in range(BLOCK_D, D, BLOCK_D):
        reach += squares(load_tile(hidden, row, inside, first, D, BLOCK_D))
    reach = tl.sqrt(reach + D * TINY)
    farthest = tl.max(reach, 0)
    fault = tl.sum(reach * 0.0, 0)
    reach = reach * relative_error
    h = as_read(h, TRUNCATE)
    tiles = tl.cdiv(V, BLOCK_V)
    if segments is not None:
        at = first_at_least(segments, entries, row_block * tiles.to(tl.int64) + begin // BLOCK_V)
        upcoming = tl.load(segments + at, mask=at < entries, other=-1)
    for start in range(begin, tl.minimum(begin + span, V), BLOCK_V):
        item, real = listed_items(catalog, start + local, V)
        w = load_tile(item_weight, item, real, 0, D, BLOCK_D)
        length = squares(w)
        z = tl.dot(h, tl.trans(as_read(w, TRUNCATE)), input_precision=PRECISION)
        for first in range(BLOCK_D, D, BLOCK_D):
            left = load_tile(hidden, row, inside, first, D, BLOCK_D)
            w = load_tile(item_weight, item, real, first, D, BLOCK_D)
            length += squares(w)
            right = tl.trans(as_read(w, TRUNCATE))
            z = tl.dot(as_read(left, TRUNCATE), right, z, input_precision=PRECISION)
        length = tl.sqrt(length + D * TINY)
        fault += tl.sum(length * 0.0, 0) + tl.max(length, 0) * farthest * 0.0
        bound = tl.where(real[None, :], z + reach[:, None] * length[None, :], float("-inf"))
        if segments is not None:
            segment = row_block * tiles.to(tl.int64) + start // BLOCK_V
            if upcoming == segment:
                excluded, at = excluded_cells(segments, places, entries, segment, at, BLOCK_B, BLOCK_V)
                bound = tl.where(excluded, float("-inf"), bound)
                upcoming = tl.load(segments + at, mask=at < entries, other=-1)
        most = tl.max(bound, 1) + D * TINY
        tl.store(bounds + row.to(tl.int64) * tiles + start // BLOCK_V, most, mask=inside)
    tl.store(faults + program, tl.where(fault != 0.0, 1, 0))


@triton.jit(do_not_specialize=["B", "V", "picks", "entries"])
def score_picks(
    hidden,
    item_weight,
    catalog,
    segments,
    places,
    picked,
    keys,
    faults,
    B,
    V,
    picks,
    entries,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    TOGETHER: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Key the float32 scores of one tile for TOGETHER rows: keys (B, picks, BLOCK_V) int64.

    The tile is the row's own of picked (B, picks) int64, with TOGETHER = 1; without `picked` it is each of
    the `picks` tiles that there are. `segments` are in blocks of BLOCK_B rows. faults (programs,) int32: 1
    where a score is not finite. Products are added in one order, whatever the launch.
    """
    program = tl.program_id(0)
    own = program // picks * TOGETHER
    if picked is None:  # noqa: SIM108 (Triton compiles one branch)
        tile = program % picks
    else:
        tile = tl.load(picked + program).to(tl.int32)
    local = tl.arange(0, BLOCK_V)
    place = tile * BLOCK_V + local
    item, real = listed_items(catalog, place, V)
    columns = tl.arange(0, BLOCK_D)
    fault = 0.0
    w = load_tile(item_weight, item, real, 0, D, BLOCK_D).to(tl.float32)
    for step in tl.static_range(TOGETHER):
        row = own + step
        inside = row < B
        start = hidden + row.to(tl.int64) * D
        h = tl.load(start + columns, mask=inside & (columns < D), other=0.0).to(tl.float32)
        score = tl.sum(w * h[None, :], 1)
        for first in range(BLOCK_D, D, BLOCK_D):
            more = tl.load(start + first + columns, mask=inside & (first + columns < D), other=0.0)
            part = load_tile(item_weight, item, real, first, D, BLOCK_D).to(tl.float32)
            score += tl.sum(part * more.to(tl.float32)[None, :], 1)
        fault += tl.sum(score * 0.0, 0)
        allowed = real
        if segments is not None:
            segment = row // BLOCK_B * tl.cdiv(V, BLOCK_V).to(tl.int64) + tile
            at = first_at_least(segments, entries, segment)
            allowed = allowed & ~excluded_items(
                segments, places, entries, segment, row % BLOCK_B, at, BLOCK_V
            )
        key = tl.where(allowed, pack(score, place), NOTHING)
        cell = (row.to(tl.int64) * picks + program % picks) * BLOCK_V + local
        tl.store(keys + cell, key, mask=inside & (local >= 0))
    tl.store(faults + program, tl.where(fault != 0.0, 1, 0))


@triton.jit(do_not_specialize=["k", "picks"])
def unpack_best(keys, bounds, catalog, scores, ids, unsure, k, picks, CHUNK: tl.constexpr):
    """Turn a row's keys (B, k), best first, into scores (B, k) and ids (B, k).

    With the bounds (B, picks) of its picked tiles, unsure (B,) int32 is 1 where another tile might hold an
    answer.
    """
    row = tl.program_id(0).to(tl.int64)
    local = tl.arange(0, CHUNK)
    for start in range(0, k, CHUNK):
        column = start + local
        known = column < k
        key = tl.load(keys + row * k + column, mask=known, other=NOTHING)
        item = 4294967295 - (key & 4294967295)
        if catalog is not None:
            item = tl.load(catalog + item, mask=key != NOTHING, other=-1)
        tl.store(scores + row * k + column, score_of(key), mask=known)
        tl.store(ids + row * k + column, tl.where(key == NOTHING, -1, item), mask=known)
    if bounds is not None:
        least = float("inf")
        for start in range(0, picks, CHUNK):
            column = start + local
            bound = tl.load(bounds + row * picks + column, mask=column < picks, other=float("inf"))
            least = tl.minimum(least, tl.min(bound, 0))
        last = score_of(tl.load(keys + row * k + k - 1))
        # A bound that is no number is above everything.
        doubt = (least != float("-inf")) & ((least >= last) | (least != least))
        tl.store(unsure + row, doubt.to(tl.int32))
