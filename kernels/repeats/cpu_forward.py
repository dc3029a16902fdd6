"""The compiled forward pass of the repeat correction, sequence by sequence.

Scores lie keys x rows, so that sums over a row's window run lane by lane. Legend: as in `cpu_pairs`.
"""

import math

import numpy as np

from recsys.kernels.repeats.cpu_pairs import (
    Batch,
    bucket_range,
    choose_keys,
    distance,
    extent,
    find_runs,
    lay_rows,
    of_bucket,
)
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
from recsys.kernels.shared.vector.activation import LOG2_E, decay

__all__ = ["forward_worker"]

_ZERO = np.float32(0.0)


@compiled
def forward_worker(
    slot: Number,
    queue: Array,
    batch: Batch,
    gained: Array,
    correction: Array,
) -> None:
    """Compute what each row gains and its correction, until the sequences are used up."""
    width = batch.width
    low, high = scratch(batch.longest), scratch(batch.longest)
    chosen = np.empty(batch.longest, dtype=np.int64)
    near = scratch(batch.longest * width)
    scores = scratch(batch.longest * PANEL)
    columns = scratch(width * PANEL)
    at_place, total = scratch(PANEL), scratch(PANEL)
    gain, every, mine = scratch(PANEL), scratch(PANEL), scratch(PANEL)
    target_ids = np.empty(PANEL, dtype=np.int32)
    speed, fall, none = splat(batch.rate), splat(LOG2_E), splat(_ZERO)
    while True:
        task = next_task(queue)
        if task >= len(batch.order):
            return
        sequence = batch.order[task]
        start: Number = np.int64(batch.event_bounds[sequence])
        length: Number = np.int64(batch.event_bounds[sequence + 1]) - start
        end: Number = np.int64(batch.row_bounds[sequence + 1])
        find_runs(batch, start, length, low, high)
        for row0 in range(np.int64(batch.row_bounds[sequence]), end, PANEL):
            count = min(PANEL, end - row0)
            lanes = PANEL if count > LANES else LANES
            lay_rows(batch, row0, count, lanes, columns, at_place, target_ids)
            nearest, furthest = extent(at_place, 0, count)
            n = choose_keys(batch, start, length, nearest, furthest, low, high, chosen, near)
            product(scores, 0, lanes, near, 0, width, 1, columns, 0, lanes, n, lanes, width, False)
            for lane in range(lanes):
                total[lane] = batch.totals[row0 + lane] if lane < count else _ZERO
            for at in range(0, lanes, LANES):
                nearest, furthest = extent(at_place, at, min(at + LANES, count))
                place, sum_ = load(at_place, at), load(total, at)
                more, all_, one = none, none, none
                for c in range(n):
                    key = chosen[c]
                    item = np.int32(batch.items[start + key])
                    first, last = bucket_range(batch.bucket_of, key, nearest, furthest)
                    far = distance(place, key)
                    score = subtract(multiply(load(scores, c * lanes + at), speed), sum_)
                    pair = multiply(of_bucket(batch.growth, first, last, far), decay(score, fall))
                    more = add(more, select_within(place, low[key], high[key], pair, none))
                    # Two sums: small equal numbers added to a large one are all rounded the same way.
                    if batch.even > _ZERO or any_equal(target_ids, at, item):
                        part = of_bucket(batch.added, first, last, far)
                        part = select_within(place, low[key], high[key], part, none)
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
