# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The GPU's forward pass where every occurrence has a weight. Legend: as in `triton_occurrence_pairs`."""

import triton
import triton.language as tl

from recsys.kernels.repeats.triton_occurrence_pairs import clock, head_at, load_runs, sums_of_runs, weigh
from recsys.kernels.repeats.triton_pairs import power_of, store_loss
from recsys.kernels.shared.triton_math import LN_2
from recsys.kernels.shared.triton_tiles import products

__all__ = ["occurrence_forward_kernel"]


@triton.jit(do_not_specialize=["events", "blocks", "event_blocks"])
def occurrence_forward_kernel(
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
    gained,
    correction,
    crossing,
    events,
    blocks,
    event_blocks,
    count,
    rate,
    own,
    even,
    least,
    SEES_LATER: tl.constexpr,
    POWERED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Compute what BLOCK_M rows gain, and their corrections, from BLOCK_N sorted events at a time.

    crossing (M, event_blocks) float32: written for the block in which a run ends that began in another one.
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
    now = None if row_quarters is None else clock(row_quarters, row, inside)
    start = tl.load(event_bounds + sequence)
    length = tl.load(event_bounds + sequence + 1) - start
    furthest = tl.max(place, 0)
    gain = tl.zeros((BLOCK_M,), tl.float32)
    every = tl.zeros((BLOCK_M,), tl.float32)
    mine = tl.zeros((BLOCK_M,), tl.float32)
    carry = tl.zeros((BLOCK_M,), tl.float32)
    carried = -1
    for begin in range(0, length, BLOCK_N):
        # Heads ascend: behind the first that lies too late there is nothing.
        if SEES_LATER or head_at(runs, events, start + begin, True) - start < furthest:
            slot, known, event, head, tail = load_runs(runs, events, start, begin, length, BLOCK_N)
            seen = tl.load(visible + event, mask=known, other=0) != 0
            at = event - start
            then = None if event_quarters is None else clock(event_quarters, event, known)
            counted = inside[:, None] & seen[None, :]
            if not SEES_LATER:
                counted = counted & (at[None, :] < place[:, None])
            weight = weigh(place, at, now, then, counted, weights, count)
            sums = sums_of_runs(weight, head, False)
            entered = known & (head == carried)
            sums += tl.where(entered[None, :], carry[:, None], 0.0)
            ends = seen & (tail == slot)
            done = tl.sum(tl.where((entered & ends)[None, :], sums, 0.0), 1)
            if tl.max((entered & ends).to(tl.int32), 0) > 0:
                to = crossing + row.to(tl.int64) * event_blocks + begin // BLOCK_N
                tl.store(to, done, mask=inside)
            last = slot == begin + BLOCK_N - 1
            carry = tl.sum(tl.where(last[None, :], sums, 0.0), 1)
            carried = tl.max(tl.where(last & (tail > slot), head, -1), 0)
            tile = products(hidden, row, inside, keys, head, ends, BLOCK_M, BLOCK_N, WIDTH, DEPTH)
            held = ends[None, :] & (sums > 0.0)
            full = tl.where(held, sums, 1.0)
            log = tl.log2(full) * rate
            grown = tl.exp2(log) if POWERED else full
            gain += tl.sum(tl.where(held, (grown - 1.0) * power_of(tile, total[:, None], rate), 0.0), 1)
            bias = tl.where(held, log * LN_2, 0.0)
            item = tl.load(items + head, mask=ends, other=-1)
            every += tl.sum(bias, 1)
            mine += tl.sum(tl.where(item[None, :] == target[:, None], bias, 0.0), 1)
    store_loss(correction, gained, row, inside, gain, mine, every, own, even, least)
