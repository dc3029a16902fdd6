"""What both passes share where every occurrence has a weight: a batch, and the weights of a block of rows.

Distinct items of a sequence have slots, in the order of their first occurrences, so that those which a causal
block of rows can meet come first. Weights of occurrences are added up by slot; then the slots' keys are
multiplied, once an item. A weight is a product of four factors: those of distance and age are chosen by
comparing, a vector of rows at a time; those of hour and weekday are laid out for the block's rows by what the
event's may be, at most 96 quarter hours and 7 days.

Legend: N events, B sequences, M rows that predict, d width, K buckets of distance; `lanes` rows of a block.
"""

from typing import Any, NamedTuple

import numpy as np

from recsys.kernels.repeats.cpu_pairs import ANY, bucket_range, distance, extent, of_bucket
from recsys.kernels.repeats.cpu_select import select_within
from recsys.kernels.repeats.occurrences import DAY_QUARTERS
from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    add,
    compiled,
    load,
    multiply,
    scratch,
    splat,
    store,
)

__all__ = [
    "AGE_BLOCK",
    "HELD",
    "WEEK",
    "OccurrenceBatch",
    "Tile",
    "add_weights",
    "age_range",
    "day_bucket",
    "event_clock",
    "find_slots",
    "lay_clock",
    "meet",
    "new_tile",
]

AGE_BLOCK = 4096
"""Quarter hours up to which a table has every age's bucket; above, blocks of so many have one each."""

HELD = np.float32(1e-37)
"""A sum of weights that no occurrence gives: less says that the window does not hold the item."""

WEEK = 7
_ZERO = np.float32(0.0)
_WEEKEND = 5
"""Days from 1970-01-01 back to a Saturday."""


class OccurrenceBatch(NamedTuple):
    """What both passes read, in one object; fields named as in `cpu_pairs.Batch` are the same."""

    order: Array
    event_bounds: Array
    row_bounds: Array
    longest: Number
    hidden: Array
    keys: Array
    width: Number
    totals: Array
    by_distance: Array
    """(K,) float32 factors of the distance."""
    by_hour: Array
    """float32 factors of the distance of two times of day, and likewise; empty unless `clocked`."""
    by_age: Array
    by_day: Array
    bucket_of: Array
    """int64 bucket of each distance that a sequence has."""
    hour_of: Array
    """int64 bucket of each difference of two times of day."""
    age_of: Array
    """(AGE_BLOCK,) int64 bucket of each age."""
    old_age_of: Array
    """int64 bucket of each block of AGE_BLOCK ages."""
    items: Array
    visible: Array
    first: Array
    """(N,) int32 as in `Occurrences`, like the quarters."""
    places: Array
    targets: Array
    event_quarters: Array
    row_quarters: Array
    clocked: Number
    sees_later: Number
    powered: Number
    """Whether the temperature is another than one."""
    rate: Number
    own: Number
    even: Number
    least: Number


class Tile(NamedTuple):
    """A block of rows as weights read it."""

    place: Array
    """(lanes,) float32 places; -1 of idle lanes."""
    now: Array
    """(lanes,) float32 quarter hours since the sequence's first event."""
    time_of_day: Array
    """(lanes,) int64 quarter hours."""
    weekday: Array
    """(lanes,) int64 from Saturday."""
    hour_factors: Array
    """(96, lanes) float32 by an event's time of day, where `laid` says so."""
    day_factors: Array
    """(7, lanes) float32 by an event's weekday."""
    laid: Array
    """(96,) bool."""


@compiled
def new_tile() -> Any:
    """Make a tile that holds nothing."""
    return Tile(
        scratch(PANEL),
        scratch(PANEL),
        np.zeros(PANEL, dtype=np.int64),
        np.zeros(PANEL, dtype=np.int64),
        scratch(DAY_QUARTERS * PANEL),
        scratch(WEEK * PANEL),
        np.zeros(DAY_QUARTERS, dtype=np.bool_),
    )


@compiled
def find_slots(
    batch: OccurrenceBatch, start: Number, length: Number, slots: Array, firsts: Array, near: Array
) -> Any:
    """Number the distinct items of a sequence and lay their keys end to end; return how many.

    An event that is not visible has slot -1.
    """
    width, keys, count = batch.width, batch.keys, 0
    for key in range(length):
        first: Number = np.int64(batch.first[start + key])
        if not batch.visible[start + key]:
            slots[key] = -1
        elif first == key:
            slots[key] = count
            firsts[count] = key
            for d in range(0, width, LANES):
                store(near, count * width + d, load(keys, (start + key) * width + d))
            count += 1
        else:
            slots[key] = slots[first]
    return count


@compiled
def meet(
    batch: OccurrenceBatch, tile: Tile, length: Number, count: Number, n_slots: Number, firsts: Array
) -> Any:
    """Return how many of a sequence's events and slots a block of rows can meet."""
    if batch.sees_later:
        return length, n_slots
    limit = min(length, np.int64(extent(tile.place, 0, count)[1]))
    n = n_slots
    while n > 0 and firsts[n - 1] >= limit:
        n -= 1
    return limit, n


@compiled
def event_clock(batch: OccurrenceBatch, event: Number) -> Any:
    """Time of day of an event in quarter hours, and its weekday from Saturday."""
    then: Number = np.int64(batch.event_quarters[event])
    return then % DAY_QUARTERS, (then // DAY_QUARTERS + _WEEKEND) % WEEK


@compiled
def lay_clock(
    batch: OccurrenceBatch, tile: Tile, start: Number, row0: Number, count: Number, lanes: Number
) -> None:
    """Lay the times of a block's rows, and the factors of the weekday."""
    base: Number = np.int64(batch.event_quarters[start])
    for lane in range(lanes):
        # Idle lanes have a row's time: they count nowhere, and widen no range of ages.
        then: Number = np.int64(batch.row_quarters[row0 + min(lane, count - 1)])
        tile.now[lane] = np.float32(then - base)
        tile.time_of_day[lane] = then % DAY_QUARTERS
        weekday = (then // DAY_QUARTERS + _WEEKEND) % WEEK
        tile.weekday[lane] = weekday
        for other in range(WEEK):
            tile.day_factors[other * lanes + lane] = batch.by_day[day_bucket(weekday, other)]
    tile.laid[:] = False


@compiled
def day_bucket(one: Number, other: Number) -> Any:
    """Bucket of two weekdays counted from Saturday."""
    if one == other:
        return 0
    return 1 if (one < 2) == (other < 2) else 2


@compiled
def age_range(batch: OccurrenceBatch, then: Number, nearest: Number, furthest: Number) -> Any:
    """Return the lowest and the highest bucket of the ages of an event at times of a range."""
    before, behind = np.int64(nearest) - then, then - np.int64(furthest)
    return _age_bucket(batch, max(before, behind, 0)), _age_bucket(batch, max(-before, -behind))


@compiled
def _age_bucket(batch: OccurrenceBatch, gap: Number) -> Any:
    if gap < AGE_BLOCK:
        return batch.age_of[gap]
    return batch.old_age_of[min(gap // AGE_BLOCK, len(batch.old_age_of) - 1)]


@compiled
def add_weights(
    batch: OccurrenceBatch,
    tile: Tile,
    start: Number,
    limit: Number,
    count: Number,
    lanes: Number,
    slots: Array,
    n_slots: Number,
    sums: Array,
    weights: Array,
    keeps: Number,
) -> None:
    """Add the weights of the first `limit` events of a sequence up by slot, for the rows of a block.

    `sums` (n_slots, lanes) is what is added up; `weights` (limit, lanes), written if `keeps`, is each pair's
    own, 0 where it does not count.
    """
    none = splat(_ZERO)
    base: Number = np.int64(0)
    if batch.clocked and limit > 0:
        base = np.int64(batch.event_quarters[start])
    for at in range(0, n_slots * lanes, LANES):
        store(sums, at, none)
    for at in range(0, lanes, LANES):
        end = min(at + LANES, count)
        nearest, furthest = extent(tile.place, at, end)
        soonest, latest = extent(tile.now, at, end)
        place, now = load(tile.place, at), load(tile.now, at)
        for key in range(limit):
            slot = slots[key]
            if slot < 0:
                continue
            first, last = bucket_range(batch.bucket_of, key, nearest, furthest)
            weight = of_bucket(batch.by_distance, first, last, distance(place, key))
            if batch.clocked:
                then: Number = np.int64(batch.event_quarters[start + key]) - base
                first, last = age_range(batch, then, soonest, latest)
                weight = multiply(weight, of_bucket(batch.by_age, first, last, distance(now, then)))
                hour, day = event_clock(batch, start + key)
                if not tile.laid[hour]:
                    _lay_hour(batch, tile, hour, lanes)
                weight = multiply(weight, load(tile.hour_factors, hour * lanes + at))
                weight = multiply(weight, load(tile.day_factors, day * lanes + at))
            low = _ZERO if batch.sees_later else np.float32(key + 1)
            weight = select_within(place, low, ANY, weight, none)
            store(sums, slot * lanes + at, add(load(sums, slot * lanes + at), weight))
            if keeps:
                store(weights, key * lanes + at, weight)


@compiled
def _lay_hour(batch: OccurrenceBatch, tile: Tile, hour: Number, lanes: Number) -> None:
    """Lay the factors of a block's rows for events at one time of day."""
    tile.laid[hour] = True
    for lane in range(lanes):
        apart = abs(tile.time_of_day[lane] - hour)
        tile.hour_factors[hour * lanes + lane] = batch.by_hour[batch.hour_of[apart]]
