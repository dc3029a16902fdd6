# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The GPU's backward pass where every occurrence has a weight, which computes weights and scores again.

A program owns a block of rows or of sorted events, and of each BLOCK_D columns.
Legend: as in `triton_occurrence_pairs`.
"""

import triton
import triton.language as tl

from recsys.kernels.repeats.triton_occurrence_pairs import (
    add_to_tables,
    clock,
    crosses_blocks,
    head_at,
    load_runs,
    sums_of_runs,
    weigh,
    whole_sums,
)
from recsys.kernels.repeats.triton_pairs import d_gains, power_of
from recsys.kernels.shared.triton_tiles import load_tile, products

__all__ = ["occurrence_keys_kernel", "occurrence_rows_kernel"]


@triton.jit(do_not_specialize=["events", "blocks", "event_blocks"])
def occurrence_rows_kernel(
    grad,
    gained,
    crossing,
    hidden,
    keys,
    totals,
    weights,
    event_bounds,
    row_bounds,
    items,
    visible,
    places,
    targets,
    runs,
    event_quarters,
    row_quarters,
    d_hidden,
    d_totals,
    parts,
    events,
    blocks,
    event_blocks,
    count,
    entries,
    rate,
    own,
    even,
    least,
    SEES_LATER: tl.constexpr,
    POWERED: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Compute the gradients of BLOCK_M rows' states and totals, and a row of `parts`, of the weights' logs.

    parts (B blocks, entries) float32, at most LANES entries.
    """
    SLICES: tl.constexpr = (WIDTH + BLOCK_D - 1) // BLOCK_D
    column = tl.program_id(0) % SLICES * BLOCK_D
    part = tl.program_id(0) // SLICES
    sequence = part // blocks
    row0 = tl.load(row_bounds + sequence) + part % blocks * BLOCK_M
    row_end = tl.load(row_bounds + sequence + 1)
    lane = tl.arange(0, LANES)
    tables = tl.zeros((LANES,), tl.float32)
    to_part = parts + part.to(tl.int64) * entries + lane
    in_part = (lane < entries) & (column == 0)
    if row0 >= row_end:
        tl.store(to_part, tables, mask=in_part)
        return
    row = row0 + tl.arange(0, BLOCK_M)
    inside = row < row_end
    place = tl.load(places + row, mask=inside, other=-1)
    target = tl.load(targets + row, mask=inside, other=0)
    total = tl.load(totals + row, mask=inside, other=0.0).to(tl.float32)
    now = None if row_quarters is None else clock(row_quarters, row, inside)
    above = tl.load(grad + row, mask=inside, other=0.0).to(tl.float32)
    d_gain = d_gains(above, gained, row, inside, least)
    d_total = -d_gain * tl.load(gained + row, mask=inside, other=0.0)
    tl.store(d_totals + row, d_total.to(d_totals.dtype.element_ty), mask=inside & (column == 0))
    start = tl.load(event_bounds + sequence)
    length = tl.load(event_bounds + sequence + 1) - start
    furthest = tl.max(place, 0)
    d_row = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for begin in range(0, length, BLOCK_N):
        if SEES_LATER or head_at(runs, events, start + begin, True) - start < furthest:
            slot, known, event, head, tail = load_runs(runs, events, start, begin, length, BLOCK_N)
            seen = tl.load(visible + event, mask=known, other=0) != 0
            at = event - start
            then = None if event_quarters is None else clock(event_quarters, event, known)
            counted = inside[:, None] & seen[None, :]
            if not SEES_LATER:
                counted = counted & (at[None, :] < place[:, None])
            weight = weigh(place, at, now, then, counted, weights, count)
            before = head_at(runs, events, start + begin - 1, begin > 0)
            crosses = crosses_blocks(head, before, tail, begin, BLOCK_N)
            earlier = inside[:, None]
            if not SEES_LATER:
                earlier = earlier & ((head - start)[None, :] < place[:, None])
            sums = whole_sums(
                sums_of_runs(weight, head, False), crossing, row[:, None], earlier, crosses[None, :],
                tail[None, :], event_blocks, BLOCK_N,
            )  # fmt: skip
            tile = products(hidden, row, inside, keys, head, seen, BLOCK_M, BLOCK_N, WIDTH, DEPTH)
            held = seen[None, :] & (sums > 0.0)
            full = tl.where(held, sums, 1.0)
            grown = tl.exp2(tl.log2(full) * rate) if POWERED else full
            power = power_of(tile, total[:, None], rate) * d_gain[:, None]
            if column == 0:
                item = tl.load(items + head, mask=seen, other=-1)
                share = tl.where(item[None, :] == target[:, None], own + even, even)
                pull = (grown * power - share * above[:, None]) * rate / full
                pull = tl.where(held & counted, pull * weight, 0.0)
                tables = add_to_tables(tables, pull, place, at, now, then, counted, count, LANES)
            # A run's item is multiplied once, at its last event.
            ends = seen & (tail == slot)
            pair = tl.where(held & ends[None, :], (grown - 1.0) * power * rate, 0.0).to(keys.dtype.element_ty)
            near = load_tile(keys, head, ends, column, WIDTH, BLOCK_D)
            d_row = tl.dot(pair, near, d_row, input_precision="ieee")
    o_column = column + tl.arange(0, BLOCK_D)
    tl.store(
        d_hidden + row.to(tl.int64)[:, None] * WIDTH + o_column[None, :],
        d_row.to(d_hidden.dtype.element_ty),
        mask=inside[:, None] & (o_column < WIDTH)[None, :],
    )
    tl.store(to_part, tables, mask=in_part)


@triton.jit(do_not_specialize=["events", "blocks"])
def occurrence_keys_kernel(
    grad,
    gained,
    crossing,
    hidden,
    keys,
    totals,
    weights,
    event_bounds,
    row_bounds,
    visible,
    places,
    runs,
    event_quarters,
    row_quarters,
    d_keys,
    events,
    blocks,
    count,
    rate,
    least,
    SEES_LATER: tl.constexpr,
    POWERED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Compute the gradients of the vectors of BLOCK_N sorted events from BLOCK_M rows at a time.

    The first event of a run has the gradient of its item, which the program of the last one writes; the
    others have none. Tiles lie events x rows, as in `triton_backward`.
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
    slot, known, event, head, tail = load_runs(runs, events, start, begin, length, BLOCK_N)
    seen = tl.load(visible + event, mask=known, other=0) != 0
    at = event - start
    then = None if event_quarters is None else clock(event_quarters, event, known)
    crosses = crosses_blocks(head, head_at(runs, events, start + begin - 1, begin > 0), tail, begin, BLOCK_N)
    ends = seen & (tail == slot)
    nearest = tl.min(tl.where(known, head - start, length), 0)
    d_key = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    row_end = tl.load(row_bounds + sequence + 1)
    for row0 in range(tl.load(row_bounds + sequence), row_end, BLOCK_M):
        row = row0 + tl.arange(0, BLOCK_M)
        inside = row < row_end
        place = tl.load(places + row, mask=inside, other=-1)
        if SEES_LATER or nearest < tl.max(place, 0):
            total = tl.load(totals + row, mask=inside, other=0.0).to(tl.float32)
            now = None if row_quarters is None else clock(row_quarters, row, inside)
            above = tl.load(grad + row, mask=inside, other=0.0).to(tl.float32)
            d_gain = d_gains(above, gained, row, inside, least)
            counted = inside[None, :] & seen[:, None]
            earlier = inside[None, :]
            if not SEES_LATER:
                counted = counted & (at[:, None] < place[None, :])
                earlier = earlier & ((head - start)[:, None] < place[None, :])
            weight = weigh(at, place, then, now, counted, weights, count)
            sums = whole_sums(
                sums_of_runs(weight, head, True), crossing, row[None, :], earlier, crosses[:, None],
                tail[:, None], blocks, BLOCK_N,
            )  # fmt: skip
            tile = products(keys, head, ends, hidden, row, inside, BLOCK_N, BLOCK_M, WIDTH, DEPTH)
            held = ends[:, None] & (sums > 0.0)
            full = tl.where(held, sums, 1.0)
            grown = tl.exp2(tl.log2(full) * rate) if POWERED else full
            pair = (grown - 1.0) * power_of(tile, total[None, :], rate) * d_gain[None, :] * rate
            pair = tl.where(held, pair, 0.0).to(hidden.dtype.element_ty)
            state = load_tile(hidden, row, inside, column, WIDTH, BLOCK_D)
            d_key = tl.dot(pair, state, d_key, input_precision="ieee")
    o_column = column + tl.arange(0, BLOCK_D)
    in_columns = (o_column < WIDTH)[None, :]
    done = known & (tail == slot)
    tl.store(
        d_keys + head.to(tl.int64)[:, None] * WIDTH + o_column[None, :],
        d_key.to(d_keys.dtype.element_ty),
        mask=done[:, None] & in_columns,
    )
    tl.store(
        d_keys + event.to(tl.int64)[:, None] * WIDTH + o_column[None, :],
        tl.zeros((BLOCK_N, BLOCK_D), d_keys.dtype.element_ty),
        mask=(known & (event != head))[:, None] & in_columns,
    )
