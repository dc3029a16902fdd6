"""The compiled forward pass where every occurrence has a weight. Legend: as in `cpu_occurrence_pairs`."""

import math

import numpy as np

from recsys.kernels.repeats.cpu_occurrence_pairs import (
    HELD,
    OccurrenceBatch,
    add_weights,
    find_slots,
    lay_clock,
    meet,
    new_tile,
)
from recsys.kernels.repeats.cpu_pairs import ANY, lay_rows
from recsys.kernels.repeats.cpu_select import any_equal, select_equal, select_within
from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    add,
    compiled,
    load,
    multiply,
    next_task,
    product,
    scratch,
    splat,
    store,
    subtract,
)
from recsys.kernels.shared.vector.activation import LOG2_E, decay, logarithm

__all__ = ["forward_worker"]

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@compiled
def forward_worker(
    slot: Number, queue: Array, batch: OccurrenceBatch, gained: Array, correction: Array
) -> None:
    """Compute what each row gains and its correction, until the sequences are used up."""
    width = batch.width
    slots = np.empty(batch.longest, dtype=np.int64)
    firsts = np.empty(batch.longest, dtype=np.int64)
    tile = new_tile()
    near = scratch(batch.longest * width)
    sums, scores = scratch(batch.longest * PANEL), scratch(batch.longest * PANEL)
    columns = scratch(width * PANEL)
    total, gain, every, mine = scratch(PANEL), scratch(PANEL), scratch(PANEL), scratch(PANEL)
    target_ids = np.empty(PANEL, dtype=np.int32)
    unkept = scratch(1)
    speed, fall, none, unit = splat(batch.rate), splat(LOG2_E), splat(_ZERO), splat(_ONE)
    while True:
        task = next_task(queue)
        if task >= len(batch.order):
            return
        sequence = batch.order[task]
        start: Number = np.int64(batch.event_bounds[sequence])
        length: Number = np.int64(batch.event_bounds[sequence + 1]) - start
        end: Number = np.int64(batch.row_bounds[sequence + 1])
        n_slots = find_slots(batch, start, length, slots, firsts, near)
        for row0 in range(np.int64(batch.row_bounds[sequence]), end, PANEL):
            count = min(PANEL, end - row0)
            lanes = PANEL if count > LANES else LANES
            lay_rows(batch, row0, count, lanes, columns, tile.place, target_ids)
            limit, n = meet(batch, tile, length, count, n_slots, firsts)
            if batch.clocked and limit > 0:
                lay_clock(batch, tile, start, row0, count, lanes)
            add_weights(batch, tile, start, limit, count, lanes, slots, n, sums, unkept, False)
            product(scores, 0, lanes, near, 0, width, 1, columns, 0, lanes, n, lanes, width, False)
            for lane in range(lanes):
                total[lane] = batch.totals[row0 + lane] if lane < count else _ZERO
            for at in range(0, lanes, LANES):
                sum_ = load(total, at)
                more, all_, one = none, none, none
                for c in range(n):
                    item = np.int32(batch.items[start + firsts[c]])
                    held = load(sums, c * lanes + at)
                    growth = subtract(held, unit)
                    if batch.powered:
                        growth = subtract(decay(multiply(logarithm(held), speed), fall), unit)
                    score = subtract(multiply(load(scores, c * lanes + at), speed), sum_)
                    pair = multiply(growth, decay(score, fall))
                    more = add(more, select_within(held, HELD, ANY, pair, none))
                    if batch.even > _ZERO or any_equal(target_ids, at, item):
                        part = multiply(logarithm(held), speed)
                        part = select_within(held, HELD, ANY, part, none)
                        all_ = add(all_, part)
                        one = add(one, select_equal(target_ids, at, item, part, none))
                store(gain, at, more)
                store(every, at, all_)
                store(mine, at, one)
            for lane in range(count):
                much = gain[lane]
                gained[row0 + lane] = much
                # A NaN is not below: it stays.
                left = batch.least if much < batch.least else much
                loss = np.float32(math.log1p(left)) - batch.own * mine[lane]
                correction[row0 + lane] = loss - batch.even * every[lane]
