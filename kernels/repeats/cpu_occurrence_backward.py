"""The compiled backward pass where every occurrence has a weight, which computes weights and scores again.

Legend: as in `cpu_occurrence_pairs`.
"""

from typing import Any, NamedTuple

import numpy as np

from recsys.kernels.repeats.cpu_occurrence_pairs import (
    HELD,
    WEEK,
    OccurrenceBatch,
    Tile,
    add_weights,
    age_range,
    day_bucket,
    event_clock,
    find_slots,
    lay_clock,
    meet,
    new_tile,
)
from recsys.kernels.repeats.cpu_pairs import ANY, bucket_range, distance, extent, lay_rows
from recsys.kernels.repeats.cpu_select import any_equal, select_equal, select_within
from recsys.kernels.repeats.occurrences import AGES, DAY_QUARTERS, DAYS, HOURS
from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    add,
    compiled,
    divide,
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
from recsys.kernels.shared.vector.activation import LOG2_E, decay, inlined, logarithm

__all__ = ["backward_worker"]

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@compiled
def backward_worker(
    slot: Number,
    queue: Array,
    batch: OccurrenceBatch,
    gained: Array,
    grad: Array,
    d_hidden: Array,
    d_keys: Array,
    d_totals: Array,
    d_weights: Array,
) -> None:
    """Compute the gradients from `grad`, that of the correction, until the sequences are used up.

    `gained` is what the forward pass wrote; `d_weights` (B, W), a row a sequence, is of the logs of weights.
    """
    width, n_distances = batch.width, len(batch.by_distance)
    n_weights = n_distances + len(batch.by_hour) + len(batch.by_age) + len(batch.by_day)
    slots = np.empty(batch.longest, dtype=np.int64)
    firsts = np.empty(batch.longest, dtype=np.int64)
    tile, tables = new_tile(), _new_tables(n_distances)
    near, parts = scratch(batch.longest * width), scratch(batch.longest * width)
    sums, scores = scratch(batch.longest * PANEL), scratch(batch.longest * PANEL)
    weights = scratch(batch.longest * PANEL)
    columns = scratch(width * PANEL)
    total, d_gained, upstream = scratch(PANEL), scratch(PANEL), scratch(PANEL)
    target_ids = np.empty(PANEL, dtype=np.int32)
    speed, fall, none, unit = splat(batch.rate), splat(LOG2_E), splat(_ZERO), splat(_ONE)
    hit, miss = splat(batch.own + batch.even), splat(batch.even)
    while True:
        task = next_task(queue)
        if task >= len(batch.order):
            return
        sequence = batch.order[task]
        start: Number = np.int64(batch.event_bounds[sequence])
        length: Number = np.int64(batch.event_bounds[sequence + 1]) - start
        end: Number = np.int64(batch.row_bounds[sequence + 1])
        n_slots = find_slots(batch, start, length, slots, firsts, near)
        for d in range(start * width, (start + length) * width, LANES):
            store(d_keys, d, none)
        _clear(tables)
        for row0 in range(np.int64(batch.row_bounds[sequence]), end, PANEL):
            count = min(PANEL, end - row0)
            lanes = PANEL if count > LANES else LANES
            lay_rows(batch, row0, count, lanes, columns, tile.place, target_ids)
            limit, n = meet(batch, tile, length, count, n_slots, firsts)
            if batch.clocked and limit > 0:
                lay_clock(batch, tile, start, row0, count, lanes)
            add_weights(batch, tile, start, limit, count, lanes, slots, n, sums, weights, True)
            product(scores, 0, lanes, near, 0, width, 1, columns, 0, lanes, n, lanes, width, False)
            for lane in range(lanes):
                total[lane] = d_gained[lane] = upstream[lane] = _ZERO
            for lane in range(count):
                row = row0 + lane
                total[lane], upstream[lane] = batch.totals[row], grad[row]
                if not gained[row] < batch.least:
                    d_gained[lane] = grad[row] / (_ONE + gained[row])
                d_totals[row] = -d_gained[lane] * gained[row]
            for at in range(0, lanes, LANES):
                sum_, d_gain, above = load(total, at), load(d_gained, at), load(upstream, at)
                for c in range(n):
                    item = np.int32(batch.items[start + firsts[c]])
                    held = load(sums, c * lanes + at)
                    grown = held
                    if batch.powered:
                        grown = decay(multiply(logarithm(held), speed), fall)
                    score = subtract(multiply(load(scores, c * lanes + at), speed), sum_)
                    power = multiply(decay(score, fall), d_gain)
                    pair = multiply(subtract(grown, unit), power)
                    pull = multiply(grown, power)
                    if batch.even > _ZERO or any_equal(target_ids, at, item):
                        share = select_equal(target_ids, at, item, hit, miss)
                        pull = subtract(pull, multiply(share, above))
                    # From here on the gradient of the sum of weights, then of the product of vectors.
                    pull = divide(multiply(pull, speed), held)
                    store(sums, c * lanes + at, select_within(held, HELD, ANY, pull, none))
                    pair = select_within(held, HELD, ANY, multiply(pair, speed), none)
                    store(scores, c * lanes + at, pair)
            _add_to_tables(batch, tile, tables, start, limit, count, lanes, slots, sums, weights)
            states = batch.hidden
            product(parts, 0, width, scores, 0, lanes, 1, states, row0 * width, width, n, width, count, False)
            for c in range(n):
                to = (start + firsts[c]) * width
                for d in range(0, width, LANES):
                    store(d_keys, to + d, add(load(d_keys, to + d), load(parts, c * width + d)))
            product(
                d_hidden, row0 * width, width, scores, 0, 1, lanes, near, 0, width, count, width, n, False
            )  # fmt: skip
        _write_tables(tables, n_distances, batch.clocked, sequence * n_weights, d_weights)


class TableGradients(NamedTuple):
    """Gradients of the logs of weights, of one sequence."""

    distance: Array
    """(K, LANES) float32."""
    age: Array
    """(AGES, LANES) float32."""
    hour: Array
    """(HOURS,) float32."""
    day: Array
    """(DAYS,) float32."""
    by_time_of_day: Array
    """(96, lanes) float32 of a block, by the event's time of day."""
    by_weekday: Array
    """(7, lanes) float32 of a block."""


@compiled
def _new_tables(n_distances: Number) -> Any:
    return TableGradients(
        scratch(n_distances * LANES),
        scratch(AGES * LANES),
        scratch(HOURS),
        scratch(DAYS),
        scratch(DAY_QUARTERS * PANEL),
        scratch(WEEK * PANEL),
    )


@compiled
def _clear(tables: TableGradients) -> None:
    tables.distance[:] = _ZERO
    tables.age[:] = _ZERO
    tables.hour[:] = _ZERO
    tables.day[:] = _ZERO


@compiled
def _add_to_tables(
    batch: OccurrenceBatch,
    tile: Tile,
    tables: TableGradients,
    start: Number,
    limit: Number,
    count: Number,
    lanes: Number,
    slots: Array,
    d_sums: Array,
    weights: Array,
) -> None:
    """Add each pair's gradient to the entries that its weight is a product of."""
    if limit == 0:
        return
    base: Number = np.int64(0)
    if batch.clocked:
        base = np.int64(batch.event_quarters[start])
        for hour in range(DAY_QUARTERS):
            if tile.laid[hour]:
                tables.by_time_of_day[hour * lanes : (hour + 1) * lanes] = _ZERO
        tables.by_weekday[:] = _ZERO
    for at in range(0, lanes, LANES):
        end = min(at + LANES, count)
        nearest, furthest = extent(tile.place, at, end)
        soonest, latest = extent(tile.now, at, end)
        place, now = load(tile.place, at), load(tile.now, at)
        for key in range(limit):
            slot = slots[key]
            if slot < 0:
                continue
            pull = multiply(load(d_sums, slot * lanes + at), load(weights, key * lanes + at))
            first, last = bucket_range(batch.bucket_of, key, nearest, furthest)
            _add_by_bucket(tables.distance, first, last, distance(place, key), pull)
            if batch.clocked:
                then: Number = np.int64(batch.event_quarters[start + key]) - base
                first, last = age_range(batch, then, soonest, latest)
                _add_by_bucket(tables.age, first, last, distance(now, then), pull)
                hour, day = event_clock(batch, start + key)
                to = hour * lanes + at
                store(tables.by_time_of_day, to, add(load(tables.by_time_of_day, to), pull))
                to = day * lanes + at
                store(tables.by_weekday, to, add(load(tables.by_weekday, to), pull))
    if not batch.clocked:
        return
    for lane in range(count):
        for hour in range(DAY_QUARTERS):
            if tile.laid[hour]:
                bucket = batch.hour_of[abs(tile.time_of_day[lane] - hour)]
                tables.hour[bucket] += tables.by_time_of_day[hour * lanes + lane]
        for day in range(WEEK):
            tables.day[day_bucket(tile.weekday[lane], day)] += tables.by_weekday[day * lanes + lane]


@inlined
def _add_by_bucket(sums: Any, first: Any, last: Any, far: Any, pull: Any) -> None:
    """Add to the sums of buckets `first` to `last`, in which each lane's distance is known to lie."""
    if first == last:
        store(sums, first * LANES, add(load(sums, first * LANES), pull))
    else:
        for bucket in range(first, last + 1):
            inner = _ZERO if bucket == first else np.float32(1 << bucket)
            outer = ANY if bucket == last else np.float32((2 << bucket) - 1)
            mine = select_within(far, inner, outer, pull, splat(_ZERO))
            store(sums, bucket * LANES, add(load(sums, bucket * LANES), mine))


@compiled
def _write_tables(
    tables: TableGradients, n_distances: Number, clocked: Number, at: Number, d_weights: Array
) -> None:
    """Write a sequence's row of the gradient: by distance, then by hour, age and day."""
    for bucket in range(n_distances):
        d_weights[at + bucket] = sum_lanes(load(tables.distance, bucket * LANES))
    if clocked:
        at += n_distances
        for bucket in range(HOURS):
            d_weights[at + bucket] = tables.hour[bucket]
        for bucket in range(AGES):
            d_weights[at + HOURS + bucket] = sum_lanes(load(tables.age, bucket * LANES))
        for bucket in range(DAYS):
            d_weights[at + HOURS + AGES + bucket] = tables.day[bucket]
