"""The compiled backward pass of the repeat correction, which computes the scores again.

Legend: as in `cpu_pairs`.
"""

import numpy as np

from recsys.kernels.repeats.cpu_pairs import (
    ANY,
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
    sum_lanes,
)
from recsys.kernels.shared.vector.activation import LOG2_E, decay

__all__ = ["backward_worker"]

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@compiled
def backward_worker(
    slot: Number,
    queue: Array,
    batch: Batch,
    gained: Array,
    grad: Array,
    d_hidden: Array,
    d_keys: Array,
    d_totals: Array,
    d_added: Array,
) -> None:
    """Compute the gradients from `grad`, that of the correction, until the sequences are used up.

    `gained` is what the forward pass wrote; `d_added` (B, K), one row a sequence, is of the bias at the
    temperature.
    """
    width, n_buckets = batch.width, len(batch.growth)
    low, high = scratch(batch.longest), scratch(batch.longest)
    chosen = np.empty(batch.longest, dtype=np.int64)
    near, parts = scratch(batch.longest * width), scratch(batch.longest * width)
    weights = scratch(batch.longest * PANEL)
    columns = scratch(width * PANEL)
    at_place, total = scratch(PANEL), scratch(PANEL)
    d_gained, upstream = scratch(PANEL), scratch(PANEL)
    target_ids = np.empty(PANEL, dtype=np.int32)
    sums = scratch(n_buckets * LANES)
    speed, fall, none = splat(batch.rate), splat(LOG2_E), splat(_ZERO)
    hit, miss = splat(batch.own + batch.even), splat(batch.even)
    while True:
        task = next_task(queue)
        if task >= len(batch.order):
            return
        sequence = batch.order[task]
        start: Number = np.int64(batch.event_bounds[sequence])
        length: Number = np.int64(batch.event_bounds[sequence + 1]) - start
        end: Number = np.int64(batch.row_bounds[sequence + 1])
        find_runs(batch, start, length, low, high)
        for d in range(start * width, (start + length) * width, LANES):
            store(d_keys, d, none)
        for d in range(0, n_buckets * LANES, LANES):
            store(sums, d, none)
        for row0 in range(np.int64(batch.row_bounds[sequence]), end, PANEL):
            count = min(PANEL, end - row0)
            lanes = PANEL if count > LANES else LANES
            lay_rows(batch, row0, count, lanes, columns, at_place, target_ids)
            nearest, furthest = extent(at_place, 0, count)
            n = choose_keys(batch, start, length, nearest, furthest, low, high, chosen, near)
            product(weights, 0, lanes, near, 0, width, 1, columns, 0, lanes, n, lanes, width, False)
            for lane in range(lanes):
                total[lane] = d_gained[lane] = upstream[lane] = _ZERO
            for lane in range(count):
                row = row0 + lane
                total[lane], upstream[lane] = batch.totals[row], grad[row]
                if not gained[row] < batch.least:
                    d_gained[lane] = grad[row] / (_ONE + gained[row])
                d_totals[row] = -d_gained[lane] * gained[row]
            for at in range(0, lanes, LANES):
                nearest, furthest = extent(at_place, at, min(at + LANES, count))
                place, sum_ = load(at_place, at), load(total, at)
                d_gain, above = load(d_gained, at), load(upstream, at)
                for c in range(n):
                    key = chosen[c]
                    item = np.int32(batch.items[start + key])
                    first, last = bucket_range(batch.bucket_of, key, nearest, furthest)
                    far = distance(place, key)
                    score = subtract(multiply(load(weights, c * lanes + at), speed), sum_)
                    power = multiply(decay(score, fall), d_gain)
                    pair = multiply(of_bucket(batch.growth, first, last, far), power)
                    # The derivative of e^bias - 1 in the bias is itself and one more.
                    pull = add(pair, power)
                    if batch.even > _ZERO or any_equal(target_ids, at, item):
                        share = select_equal(target_ids, at, item, hit, miss)
                        pull = subtract(pull, multiply(share, above))
                    pull = select_within(place, low[key], high[key], pull, none)
                    if first == last:
                        store(sums, first * LANES, add(load(sums, first * LANES), pull))
                    else:
                        for bucket in range(first, last + 1):
                            inner = _ZERO if bucket == first else np.float32(1 << bucket)
                            outer = ANY if bucket == last else np.float32((2 << bucket) - 1)
                            mine = select_within(far, inner, outer, pull, none)
                            store(sums, bucket * LANES, add(load(sums, bucket * LANES), mine))
                    pair = select_within(place, low[key], high[key], multiply(pair, speed), none)
                    store(weights, c * lanes + at, pair)
            product(
                parts,
                0,
                width,
                weights,
                0,
                lanes,
                1,
                batch.hidden,
                row0 * width,
                width,
                n,
                width,
                count,
                False,
            )
            for c in range(n):
                to = (start + chosen[c]) * width
                for d in range(0, width, LANES):
                    store(d_keys, to + d, add(load(d_keys, to + d), load(parts, c * width + d)))
            product(
                d_hidden, row0 * width, width, weights, 0, 1, lanes, near, 0, width, count, width, n, False
            )  # fmt: skip
        for bucket in range(n_buckets):
            d_added[sequence * n_buckets + bucket] = sum_lanes(load(sums, bucket * LANES))
