# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The GPU's backward pass of the repeat correction, which computes the scores again.

A program owns a block of rows or of events, and of each BLOCK_D columns: nothing is added by two programs.
Legend: as in `triton_pairs`.
"""

import triton
import triton.language as tl

from recsys.kernels.repeats.triton_pairs import add_by_bucket, bucket_of, d_gains, power_of, runs
from recsys.kernels.shared.triton_tiles import load_tile, products

__all__ = ["keys_kernel", "rows_kernel"]


@triton.jit(do_not_specialize=["blocks"])
def rows_kernel(
    grad,
    gained,
    hidden,
    keys,
    totals,
    growth,
    event_bounds,
    row_bounds,
    items,
    visible,
    following,
    preceding,
    places,
    targets,
    d_hidden,
    d_totals,
    parts,
    blocks,
    buckets,
    rate,
    own,
    even,
    least,
    SEES_LATER: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Compute the gradients of BLOCK_M rows' states and totals, and a row of `parts`, of the biases'.

    parts (B blocks, K) float32, K = buckets at most LANES.
    """
    SLICES: tl.constexpr = (WIDTH + BLOCK_D - 1) // BLOCK_D
    column = tl.program_id(0) % SLICES * BLOCK_D
    part = tl.program_id(0) // SLICES
    sequence = part // blocks
    row0 = tl.load(row_bounds + sequence) + part % blocks * BLOCK_M
    row_end = tl.load(row_bounds + sequence + 1)
    lane = tl.arange(0, LANES)
    sums = tl.zeros((LANES,), tl.float32)
    to_part = parts + part.to(tl.int64) * buckets + lane
    in_part = (lane < buckets) & (column == 0)
    if row0 >= row_end:
        tl.store(to_part, sums, mask=in_part)
        return
    row = row0 + tl.arange(0, BLOCK_M)
    inside = row < row_end
    place = tl.load(places + row, mask=inside, other=-1)
    target = tl.load(targets + row, mask=inside, other=0)
    total = tl.load(totals + row, mask=inside, other=0.0).to(tl.float32)
    above = tl.load(grad + row, mask=inside, other=0.0).to(tl.float32)
    d_gain = d_gains(above, gained, row, inside, least)
    d_total = -d_gain * tl.load(gained + row, mask=inside, other=0.0)
    tl.store(d_totals + row, d_total.to(d_totals.dtype.element_ty), mask=inside & (column == 0))
    start = tl.load(event_bounds + sequence)
    length = tl.load(event_bounds + sequence + 1) - start
    furthest = tl.max(place, 0)
    nearest = tl.min(tl.where(inside, place, furthest), 0)
    end = length if SEES_LATER else tl.minimum(length, furthest)
    d_row = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for begin in range(0, end, BLOCK_N):
        key = begin + tl.arange(0, BLOCK_N)
        event, known = start + key, key < length
        low, high = runs(event, key, known, length, visible, following, preceding, SEES_LATER)
        met = (low <= furthest) & (high >= nearest)
        if tl.max(met.to(tl.int32), 0) > 0:
            tile = products(hidden, row, inside, keys, event, met, BLOCK_M, BLOCK_N, WIDTH, DEPTH)
            counted = met[None, :] & (place[:, None] >= low[None, :]) & (place[:, None] <= high[None, :])
            bucket = bucket_of(tl.abs(place[:, None] - key[None, :]), buckets - 1)
            power = power_of(tile, total[:, None], rate) * d_gain[:, None]
            pair = tl.load(growth + bucket) * power
            if column == 0:
                item = tl.load(items + event, mask=met, other=-1)
                share = tl.where(item[None, :] == target[:, None], own + even, even)
                # The derivative of e^bias - 1 in the bias is itself and one more.
                pull = pair + power - share * above[:, None]
                sums = add_by_bucket(sums, 0, pull, bucket, counted, LANES)
            weight = tl.where(counted, pair * rate, 0.0).to(keys.dtype.element_ty)
            near = load_tile(keys, event, met, column, WIDTH, BLOCK_D)
            d_row = tl.dot(weight, near, d_row, input_precision="ieee")
    o_column = column + tl.arange(0, BLOCK_D)
    tl.store(
        d_hidden + row.to(tl.int64)[:, None] * WIDTH + o_column[None, :],
        d_row.to(d_hidden.dtype.element_ty),
        mask=inside[:, None] & (o_column < WIDTH)[None, :],
    )
    tl.store(to_part, sums, mask=in_part)


@triton.jit(do_not_specialize=["blocks"])
def keys_kernel(
    grad,
    gained,
    hidden,
    keys,
    totals,
    growth,
    event_bounds,
    row_bounds,
    visible,
    following,
    preceding,
    places,
    d_keys,
    blocks,
    buckets,
    rate,
    least,
    SEES_LATER: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Compute the gradients of BLOCK_N events' vectors from BLOCK_M rows at a time.

    Tiles lie events x rows, so that nothing made by a product is transposed: on Hopper some versions of
    Triton compile that wrongly.
    """
    SLICES: tl.constexpr = (WIDTH + BLOCK_D - 1) // BLOCK_D
    column = tl.program_id(0) % SLICES * BLOCK_D
    part = tl.program_id(0) // SLICES
    sequence = part // blocks
    start = tl.load(event_bounds + sequence)
    length = tl.load(event_bounds + sequence + 1) - start
    begin = part % blocks * BLOCK_N
    if begin >= length:
        return
    key = begin + tl.arange(0, BLOCK_N)
    event, known = start + key, key < length
    low, high = runs(event, key, known, length, visible, following, preceding, SEES_LATER)
    met = known & (low <= high)
    d_key = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    row_end = tl.load(row_bounds + sequence + 1)
    for row0 in range(tl.load(row_bounds + sequence), row_end, BLOCK_M):
        row = row0 + tl.arange(0, BLOCK_M)
        inside = row < row_end
        place = tl.load(places + row, mask=inside, other=-1)
        counted = met[:, None] & (place[None, :] >= low[:, None]) & (place[None, :] <= high[:, None])
        counted = counted & inside[None, :]
        if tl.max(tl.max(counted.to(tl.int32), 1), 0) > 0:
            total = tl.load(totals + row, mask=inside, other=0.0).to(tl.float32)
            above = tl.load(grad + row, mask=inside, other=0.0).to(tl.float32)
            d_gain = d_gains(above, gained, row, inside, least)
            tile = products(keys, event, met, hidden, row, inside, BLOCK_N, BLOCK_M, WIDTH, DEPTH)
            bucket = bucket_of(tl.abs(place[None, :] - key[:, None]), buckets - 1)
            pair = tl.load(growth + bucket) * power_of(tile, total[None, :], rate) * d_gain[None, :]
            weight = tl.where(counted, pair * rate, 0.0).to(hidden.dtype.element_ty)
            state = load_tile(hidden, row, inside, column, WIDTH, BLOCK_D)
            d_key = tl.dot(weight, state, d_key, input_precision="ieee")
    o_column = column + tl.arange(0, BLOCK_D)
    tl.store(
        d_keys + event.to(tl.int64)[:, None] * WIDTH + o_column[None, :],
        d_key.to(d_keys.dtype.element_ty),
        mask=known[:, None] & (o_column < WIDTH)[None, :],
    )
