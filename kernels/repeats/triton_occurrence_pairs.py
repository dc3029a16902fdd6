# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What both passes on the GPU share where every occurrence has a weight: weights of pairs, sums by item.

Events of a sequence are walked sorted by item (`occurrences.event_runs`), so that an item is a run of them.
Inside a block of events the sums of runs are a product with the matrix of which events belong together; a run
that goes on into later blocks is carried, and its whole sum kept once (`crossing`) for the backward pass.

Legend: as in `triton_pairs`; a *head* is the first event of a run, a *tail* the sorted place of its last one.
"""

import triton
import triton.language as tl

from recsys.kernels.repeats.occurrences import AGES, DAY_QUARTERS, DAYS, HOURS
from recsys.kernels.repeats.triton_pairs import add_by_bucket, bucket_of
from recsys.kernels.shared.triton_math import LOG2_E

__all__ = [
    "add_to_tables",
    "clock",
    "crosses_blocks",
    "head_at",
    "load_runs",
    "sums_of_runs",
    "weigh",
    "whole_sums",
]

_DAY_QUARTERS = tl.constexpr(DAY_QUARTERS)
_HOURS = tl.constexpr(HOURS)
_AGES = tl.constexpr(AGES)
_DAYS = tl.constexpr(DAYS)
_WEEK = tl.constexpr(7)
_WEEKEND = tl.constexpr(5)
"""Weekday of 1970-01-01 counted from Saturday."""


@triton.jit
def load_runs(runs, events, start, begin, length, BLOCK_N: tl.constexpr):
    """Events, heads and tails of a block of sorted places, which of them exist, and the places.

    runs (3, events) as of `event_runs`. Places and tails count from the sequence's start; heads, and events,
    from the batch's. A head is -1 where there is nothing.
    """
    slot = begin + tl.arange(0, BLOCK_N)
    known = slot < length
    event = tl.load(runs + start + slot, mask=known, other=0)
    head = tl.load(runs + events + start + slot, mask=known, other=-1)
    tail = tl.load(runs + 2 * events + start + slot, mask=known, other=0) - start
    return slot, known, event, head, tail


@triton.jit
def head_at(runs, events, slot, there):
    """Head of the run at a sorted place of the batch, -1 if it is not `there`."""
    return tl.load(runs + events + slot, mask=there, other=-1)


@triton.jit
def clock(quarters, at, inside):
    """Quarter hours of events or rows, their time of day, and their weekday from Saturday."""
    when = tl.load(quarters + at, mask=inside, other=0)
    hour = (when % _DAY_QUARTERS + _DAY_QUARTERS) % _DAY_QUARTERS
    day = (when - hour) // _DAY_QUARTERS + _WEEKEND
    return when, hour, (day % _WEEK + _WEEK) % _WEEK


@triton.jit
def _buckets(place, at, now, then, count):
    """Buckets of a tile of pairs by distance, hour, age and day; without times there is only the first.

    place (m,) of rows and at (n,) of events, or the other way about: the tile is (m, n). now and then: as
    `clock` gives them, or None.
    """
    far = bucket_of(tl.abs(place[:, None] - at[None, :]), count - 1)
    if now is None:
        return far, far, far, far  # Triton 3.6 has no None in tuples
    else:
        apart = tl.abs(now[1][:, None] - then[1][None, :])
        hour = tl.minimum(tl.minimum(apart, tl.abs(apart - _DAY_QUARTERS)) // 2, _HOURS - 1)
        age = bucket_of(tl.abs(now[0][:, None] - then[0][None, :]), _AGES - 1)
        same_kind = (now[2] < 2)[:, None] == (then[2] < 2)[None, :]
        day = tl.where(now[2][:, None] == then[2][None, :], 0, tl.where(same_kind, 1, 2))
        return far, hour, age, day


@triton.jit
def weigh(place, at, now, then, counted, weights, count):
    """Weights of a tile of pairs, 0 where not `counted`; weights (K + CLOCK,) or (K,), K = count."""
    far, hour, age, day = _buckets(place, at, now, then, count)
    logs = tl.load(weights + far).to(tl.float32)
    if now is not None:
        table = weights + count
        logs += tl.load(table + hour).to(tl.float32)
        logs += tl.load(table + _HOURS + age).to(tl.float32)
        logs += tl.load(table + _HOURS + _AGES + day).to(tl.float32)
    return tl.where(counted, tl.exp2(logs * LOG2_E), 0.0)


@triton.jit
def add_to_tables(sums, tile, place, at, now, then, counted, count, LANES: tl.constexpr):
    """Add a tile of gradients to `sums` (LANES,), each to the entries that its weight is a product of."""
    far, hour, age, day = _buckets(place, at, now, then, count)
    sums = add_by_bucket(sums, 0, tile, far, counted, LANES)
    if now is not None:
        sums = add_by_bucket(sums, count, tile, hour, counted, LANES)
        sums = add_by_bucket(sums, count + _HOURS, tile, age, counted, LANES)
        sums = add_by_bucket(sums, count + _HOURS + _AGES, tile, day, counted, LANES)
    return sums


@triton.jit
def sums_of_runs(weight, head, EVENTS_FIRST: tl.constexpr):
    """Sums of a tile's weights (rows, events), or (events, rows), by run, at each event of it."""
    together = (head[:, None] == head[None, :]).to(tl.float32)
    if EVENTS_FIRST:
        return tl.dot(together, weight, input_precision="ieee")
    return tl.dot(weight, together, input_precision="ieee")


@triton.jit
def whole_sums(part, crossing, row, earlier, crosses, tail, blocks, BLOCK_N: tl.constexpr):
    """Sums by run where runs may reach beyond a block: those that do are read from `crossing` (M, blocks).

    row, `earlier` (whether the head is in the row's window), `crosses` and tail have shapes that broadcast to
    `part`.
    """
    entry = row.to(tl.int64) * blocks + tail // BLOCK_N
    return tl.where(crosses, tl.load(crossing + entry, mask=earlier & crosses, other=0.0), part)


@triton.jit
def crosses_blocks(head, before, tail, begin, BLOCK_N: tl.constexpr):
    """Whether the run of each event of a block goes beyond it; `before`: head of the event ahead, or -1."""
    return (head >= 0) & ((head == before) | (tail >= begin + BLOCK_N))
