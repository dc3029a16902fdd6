# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The GPU's forward pass of the repeat correction: a program takes a block of rows of one sequence.

Legend: as in `triton_pairs`.
"""

import triton
import triton.language as tl

from recsys.kernels.repeats.triton_pairs import bucket_of, power_of, runs, store_loss
from recsys.kernels.shared.triton_tiles import products

__all__ = ["forward_kernel"]


@triton.jit(do_not_specialize=["blocks"])
def forward_kernel(
    hidden,
    keys,
    totals,
    added,
    growth,
    event_bounds,
    row_bounds,
    items,
    visible,
    following,
    preceding,
    places,
    targets,
    gained,
    correction,
    blocks,
    last_bucket,
    rate,
    own,
    even,
    least,
    SEES_LATER: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Compute what BLOCK_M rows gain, and their corrections, from BLOCK_N events at a time.

    hidden (M, d), keys (N, d); added and growth (K,): b and e^b - 1. Events whose runs of places meet none of
    the rows are not multiplied.
    """
    sequence = tl.program_id(0) // blocks
    row0 = tl.load(row_bounds + sequence) + tl.program_id(0) % blocks * BLOCK_M
    row_end = tl.load(row_bounds + sequence + 1)
    if row0 >= row_end:
        return
    row = row0 + tl.arange(0, BLOCK_M)
    inside = row < row_end
    place = tl.load(places + row, mask=inside, other=-1)
    target = tl.load(targets + row, mask=inside, other=0)
    total = tl.load(totals + row, mask=inside, other=0.0).to(tl.float32)
    start = tl.load(event_bounds + sequence)
    length = tl.load(event_bounds + sequence + 1) - start
    furthest = tl.max(place, 0)
    nearest = tl.min(tl.where(inside, place, furthest), 0)
    end = length if SEES_LATER else tl.minimum(length, furthest)
    gain = tl.zeros((BLOCK_M,), tl.float32)
    every = tl.zeros((BLOCK_M,), tl.float32)
    mine = tl.zeros((BLOCK_M,), tl.float32)
    for begin in range(0, end, BLOCK_N):
        key = begin + tl.arange(0, BLOCK_N)
        event, known = start + key, key < length
        low, high = runs(event, key, known, length, visible, following, preceding, SEES_LATER)
        met = (low <= furthest) & (high >= nearest)
        if tl.max(met.to(tl.int32), 0) > 0:
            tile = products(hidden, row, inside, keys, event, met, BLOCK_M, BLOCK_N, WIDTH, DEPTH)
            counted = met[None, :] & (place[:, None] >= low[None, :]) & (place[:, None] <= high[None, :])
            bucket = bucket_of(tl.abs(place[:, None] - key[None, :]), last_bucket)
            pair = tl.load(growth + bucket) * power_of(tile, total[:, None], rate)
            gain += tl.sum(tl.where(counted, pair, 0.0), 1)
            bias = tl.where(counted, tl.load(added + bucket), 0.0)
            item = tl.load(items + event, mask=met, other=-1)
            # Two sums: small equal numbers added to a large one are all rounded the same way.
            every += tl.sum(bias, 1)
            mine += tl.sum(tl.where(item[None, :] == target[:, None], bias, 0.0), 1)
    store_loss(correction, gained, row, inside, gain, mine, every, own, even, least)
