"""The compiled loops of the correction for repeats: forward and backward over the sequences of a batch.

An event counts at a run of places: those to which it is the nearest of its item's occurrences. So a block of
rows first chooses the events whose runs it meets; their keys are laid end to end and nothing else is
multiplied. Scores lie keys x rows, so that sums over a row's window run lane by lane.

Legend: d `width` (a multiple of LANES), L events of a sequence, `lanes` rows of a block (LANES or PANEL, the
last ones idle), C chosen keys, K buckets.
"""

import math
from typing import Any

import numpy as np

from recsys.kernels.repeats.pair_lanes import any_equal, select_equal, select_within
from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    add,
    compiled,
    load,
    maximum,
    multiply,
    next_task,
    product,
    scratch,
    splat,
    store,
    subtract,
    sum_lanes,
    transpose_square,
)
from recsys.kernels.shared.vector.activation import LOG2_E, decay, inlined

__all__ = ["backward_worker", "forward_worker"]

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_ANY = np.float32(np.inf)
_IDLE = np.float32(-1.0)
"""Place of an idle lane: no event counts there."""


@compiled
def _find_runs(
    visible: Array,
    following: Array,
    preceding: Array,
    start: Number,
    length: Number,
    sees_later: Number,
    low: Array,
    high: Array,
) -> None:
    """Find the places, low to high, at which each event of a sequence counts; none if it is not visible.

    With later events in the window: of two as near the earlier one counts, so that a run ends in the middle
    of an event and the next of its item, and begins behind the middle of it and the one before.
    """
    for key in range(length):
        first: Number = key + 1
        last: Number = np.int64(following[start + key])
        if sees_later:
            first = ((preceding[start + key] + key) >> 1) + 1
            last = (last + key) >> 1
        if not visible[start + key]:
            first, last = length + 1, -1
        low[key] = np.float32(max(first, 0))
        high[key] = np.float32(min(last, length))


@compiled
def _choose(
    keys: Array,
    width: Number,
    start: Number,
    length: Number,
    nearest: Number,
    furthest: Number,
    low: Array,
    high: Array,
    chosen: Array,
    near: Array,
) -> Any:
    """Lay the keys that count at places from `nearest` to `furthest` end to end; return how many."""
    count = 0
    for key in range(length):
        if low[key] <= furthest and high[key] >= nearest:
            chosen[count] = key
            for d in range(0, width, LANES):
                store(near, count * width + d, load(keys, (start + key) * width + d))
            count += 1
    return count


@compiled
def _lay_rows(
    hidden: Array,
    width: Number,
    places: Array,
    targets: Array,
    row0: Number,
    count: Number,
    lanes: Number,
    columns: Array,
    at_place: Array,
    wanted: Array,
) -> None:
    """Lay a block's states as columns of a (d, lanes) tile; its places and targets beside."""
    for lane in range(0, lanes, LANES):
        for d in range(0, width, LANES):
            transpose_square(
                columns, d * lanes + lane, lanes, hidden, (row0 + lane) * width + d, width,
                min(LANES, count - lane),
            )  # fmt: skip
    for lane in range(lanes):
        at_place[lane] = np.float32(places[row0 + lane]) if lane < count else _IDLE
        wanted[lane] = np.int32(targets[row0 + lane]) if lane < count else np.int32(0)


@compiled
def _extent(at_place: Array, at: Number, end: Number) -> Any:
    """Return the smallest and the largest of some places."""
    nearest = furthest = at_place[at]
    for lane in range(at + 1, end):
        nearest, furthest = min(nearest, at_place[lane]), max(furthest, at_place[lane])
    return nearest, furthest


@compiled
def _reach(bucket_of: Array, key: Number, nearest: Number, furthest: Number) -> Any:
    """Return the lowest and the highest bucket of distances from a key to places of a range."""
    before, behind = np.int64(nearest) - key, key - np.int64(furthest)
    return bucket_of[max(before, behind, 0)], bucket_of[max(-before, -behind)]


@inlined
def _distance(place: Any, key: Any) -> Any:
    """Distance of each lane's place from a key."""
    gap = subtract(place, splat(np.float32(key)))
    return maximum(gap, subtract(splat(_ZERO), gap))


@inlined
def _of_bucket(table: Any, first: Any, last: Any, distance: Any) -> Any:
    """Look up each lane's entry by its distance, known to lie in buckets `first` to `last`."""
    found = splat(table[first])
    for bucket in range(first + 1, last + 1):
        found = select_within(distance, np.float32(1 << bucket), _ANY, splat(table[bucket]), found)
    return found


@compiled
def forward_worker(
    slot: Number,
    queue: Array,
    order: Array,
    event_bounds: Array,
    row_bounds: Array,
    longest: Number,
    hidden: Array,
    keys: Array,
    width: Number,
    totals: Array,
    growth: Array,
    added: Array,
    bucket_of: Array,
    items: Array,
    visible: Array,
    following: Array,
    preceding: Array,
    places: Array,
    targets: Array,
    sees_later: Number,
    rate: Number,
    own: Number,
    even: Number,
    least: Number,
    gained: Array,
    correction: Array,
) -> None:
    """Compute what each row gains and its correction, until the sequences are used up.

    `added` (K,) is the bias and `growth` e^bias - 1, both at the temperature whose inverse `rate` is; `own`
    is the weight of the target's bias in the loss and `even` that of every bias of the window.
    """
    low, high = scratch(longest), scratch(longest)
    chosen = np.empty(longest, dtype=np.int64)
    near = scratch(longest * width)
    scores = scratch(longest * PANEL)
    columns = scratch(width * PANEL)
    at_place, total = scratch(PANEL), scratch(PANEL)
    gain, every, mine = scratch(PANEL), scratch(PANEL), scratch(PANEL)
    wanted = np.empty(PANEL, dtype=np.int32)
    speed, fall, none = splat(rate), splat(LOG2_E), splat(_ZERO)
    while True:
        piece = next_task(queue)
        if piece >= len(order):
            return
        sequence = order[piece]
        start: Number = np.int64(event_bounds[sequence])
        length: Number = np.int64(event_bounds[sequence + 1]) - start
        end: Number = np.int64(row_bounds[sequence + 1])
        _find_runs(visible, following, preceding, start, length, sees_later, low, high)
        for row0 in range(np.int64(row_bounds[sequence]), end, PANEL):
            count = min(PANEL, end - row0)
            lanes = PANEL if count > LANES else LANES
            _lay_rows(hidden, width, places, targets, row0, count, lanes, columns, at_place, wanted)
            nearest, furthest = _extent(at_place, 0, count)
            n = _choose(keys, width, start, length, nearest, furthest, low, high, chosen, near)
            product(scores, 0, lanes, near, 0, width, 1, columns, 0, lanes, n, lanes, width, False)
            for lane in range(lanes):
                total[lane] = totals[row0 + lane] if lane < count else _ZERO
            for at in range(0, lanes, LANES):
                nearest, furthest = _extent(at_place, at, min(at + LANES, count))
                place, sum_ = load(at_place, at), load(total, at)
                more, all_, one = none, none, none
                for c in range(n):
                    key = chosen[c]
                    item = np.int32(items[start + key])
                    first, last = _reach(bucket_of, key, nearest, furthest)
                    far = _distance(place, key)
                    score = subtract(multiply(load(scores, c * lanes + at), speed), sum_)
                    pair = multiply(_of_bucket(growth, first, last, far), decay(score, fall))
                    more = add(more, select_within(place, low[key], high[key], pair, none))
                    # Two sums: small equal numbers added to a large one are all rounded the same way.
                    if even > _ZERO or any_equal(wanted, at, item):
                        part = _of_bucket(added, first, last, far)
                        part = select_within(place, low[key], high[key], part, none)
                        all_ = add(all_, part)
                        one = add(one, select_equal(wanted, at, item, part, none))
                store(gain, at, more)
                store(every, at, all_)
                store(mine, at, one)
            for lane in range(count):
                much = gain[lane]
                gained[row0 + lane] = much
                # A NaN is not below: it stays.
                left = least if much < least else much
                loss = np.float32(math.log1p(left)) - own * mine[lane]
                correction[row0 + lane] = loss - even * every[lane]


@compiled
def backward_worker(
    slot: Number,
    queue: Array,
    order: Array,
    event_bounds: Array,
    row_bounds: Array,
    longest: Number,
    hidden: Array,
    keys: Array,
    width: Number,
    totals: Array,
    growth: Array,
    bucket_of: Array,
    items: Array,
    visible: Array,
    following: Array,
    preceding: Array,
    places: Array,
    targets: Array,
    sees_later: Number,
    rate: Number,
    own: Number,
    even: Number,
    least: Number,
    gained: Array,
    grad: Array,
    d_hidden: Array,
    d_keys: Array,
    d_totals: Array,
    d_added: Array,
) -> None:
    """Compute the gradients from `grad`, that of the correction, until the sequences are used up.

    Arguments as in `forward_worker`; `d_added` (B, K), one row a sequence, is of the bias at the temperature.
    """
    n_buckets = len(growth)
    low, high = scratch(longest), scratch(longest)
    chosen = np.empty(longest, dtype=np.int64)
    near, parts = scratch(longest * width), scratch(longest * width)
    weights = scratch(longest * PANEL)
    columns = scratch(width * PANEL)
    at_place, total = scratch(PANEL), scratch(PANEL)
    slope, upstream = scratch(PANEL), scratch(PANEL)
    wanted = np.empty(PANEL, dtype=np.int32)
    sums = scratch(n_buckets * LANES)
    speed, fall, none = splat(rate), splat(LOG2_E), splat(_ZERO)
    hit, miss = splat(own + even), splat(even)
    while True:
        piece = next_task(queue)
        if piece >= len(order):
            return
        sequence = order[piece]
        start: Number = np.int64(event_bounds[sequence])
        length: Number = np.int64(event_bounds[sequence + 1]) - start
        end: Number = np.int64(row_bounds[sequence + 1])
        _find_runs(visible, following, preceding, start, length, sees_later, low, high)
        for d in range(start * width, (start + length) * width, LANES):
            store(d_keys, d, none)
        for d in range(0, n_buckets * LANES, LANES):
            store(sums, d, none)
        for row0 in range(np.int64(row_bounds[sequence]), end, PANEL):
            count = min(PANEL, end - row0)
            lanes = PANEL if count > LANES else LANES
            _lay_rows(hidden, width, places, targets, row0, count, lanes, columns, at_place, wanted)
            nearest, furthest = _extent(at_place, 0, count)
            n = _choose(keys, width, start, length, nearest, furthest, low, high, chosen, near)
            product(weights, 0, lanes, near, 0, width, 1, columns, 0, lanes, n, lanes, width, False)
            for lane in range(lanes):
                total[lane] = slope[lane] = upstream[lane] = _ZERO
            for lane in range(count):
                row = row0 + lane
                total[lane], upstream[lane] = totals[row], grad[row]
                if not gained[row] < least:
                    slope[lane] = grad[row] / (_ONE + gained[row])
                d_totals[row] = -slope[lane] * gained[row]
            for at in range(0, lanes, LANES):
                nearest, furthest = _extent(at_place, at, min(at + LANES, count))
                place, sum_ = load(at_place, at), load(total, at)
                steep, above = load(slope, at), load(upstream, at)
                for c in range(n):
                    key = chosen[c]
                    item = np.int32(items[start + key])
                    first, last = _reach(bucket_of, key, nearest, furthest)
                    far = _distance(place, key)
                    score = subtract(multiply(load(weights, c * lanes + at), speed), sum_)
                    power = multiply(decay(score, fall), steep)
                    pair = multiply(_of_bucket(growth, first, last, far), power)
                    # The slope in the bias of e^bias - 1 is itself and one more.
                    pull = add(pair, power)
                    if even > _ZERO or any_equal(wanted, at, item):
                        share = select_equal(wanted, at, item, hit, miss)
                        pull = subtract(pull, multiply(share, above))
                    pull = select_within(place, low[key], high[key], pull, none)
                    if first == last:
                        store(sums, first * LANES, add(load(sums, first * LANES), pull))
                    else:
                        for bucket in range(first, last + 1):
                            inner = _ZERO if bucket == first else np.float32(1 << bucket)
                            outer = _ANY if bucket == last else np.float32((2 << bucket) - 1)
                            mine = select_within(far, inner, outer, pull, none)
                            store(sums, bucket * LANES, add(load(sums, bucket * LANES), mine))
                    pair = select_within(place, low[key], high[key], multiply(pair, speed), none)
                    store(weights, c * lanes + at, pair)
            product(
                parts, 0, width, weights, 0, lanes, 1, hidden, row0 * width, width, n, width, count, False
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
