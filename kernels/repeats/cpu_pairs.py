"""What both passes of the repeat correction share: a batch, the pairs of rows and events that count in it.

An event counts at a run of places: those to which it is the nearest of its item's occurrences. So a block of
rows first chooses the events whose runs it meets; their keys are laid end to end and nothing else is
multiplied.

Legend: N events, B sequences, M rows that predict, d width, K buckets; `lanes` rows of a block (LANES or
PANEL, the last ones idle).
"""

from typing import Any, NamedTuple

import numpy as np

from recsys.kernels.repeats.cpu_select import select_within
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    compiled,
    load,
    maximum,
    splat,
    store,
    subtract,
    transpose_square,
)
from recsys.kernels.shared.vector.activation import inlined

__all__ = [
    "ANY",
    "Batch",
    "bucket_range",
    "choose_keys",
    "distance",
    "extent",
    "find_runs",
    "lay_rows",
    "of_bucket",
]

ANY = np.float32(np.inf)
"""A distance that every other is within."""

_ZERO = np.float32(0.0)
_IDLE = np.float32(-1.0)
"""Place of an idle lane: no event counts there."""


class Batch(NamedTuple):
    """What both passes read, in one object: states, keys, layout and the loss's numbers."""

    order: Array
    """int64 sequences, in the order in which they are taken."""
    event_bounds: Array
    """(B + 1,) int32, where the events of each sequence begin."""
    row_bounds: Array
    """(B + 1,) int32, likewise of the rows."""
    longest: Number
    """Events of the longest sequence."""
    hidden: Array
    """(M d,) float32."""
    keys: Array
    """(N d,) float32."""
    width: Number
    """d, a multiple of LANES."""
    totals: Array
    """(M,) float32 logsumexp of each row's logits."""
    growth: Array
    """(K,) float32 e^bias - 1, at the temperature."""
    added: Array
    """(K,) float32 bias, at the temperature."""
    bucket_of: Array
    """int64 bucket of each distance that a sequence has."""
    items: Array
    """As in `RepeatLayout`, like the next five."""
    visible: Array
    following: Array
    preceding: Array
    places: Array
    targets: Array
    sees_later: Number
    """Whether later events are in the window."""
    rate: Number
    """float32, 1 / temperature."""
    own: Number
    """float32 weight of the target's bias in the loss."""
    even: Number
    """float32 weight of every bias of the window."""
    least: Number
    """float32, the least that a row may gain."""


@compiled
def find_runs(batch: Batch, start: Number, length: Number, low: Array, high: Array) -> None:
    """Find the places, low to high, at which each event of a sequence counts; none if it is not visible.

    With later events in the window: of two as near the earlier one counts, so that a run ends in the middle
    of an event and the next of its item, and begins behind the middle of it and the one before.
    """
    for key in range(length):
        first: Number = key + 1
        last: Number = np.int64(batch.following[start + key])
        if batch.sees_later:
            first = ((batch.preceding[start + key] + key) >> 1) + 1
            last = (last + key) >> 1
        if not batch.visible[start + key]:
            first, last = length + 1, -1
        low[key] = np.float32(max(first, 0))
        high[key] = np.float32(min(last, length))


@compiled
def choose_keys(
    batch: Batch,
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
    keys, width, count = batch.keys, batch.width, 0
    for key in range(length):
        if low[key] <= furthest and high[key] >= nearest:
            chosen[count] = key
            for d in range(0, width, LANES):
                store(near, count * width + d, load(keys, (start + key) * width + d))
            count += 1
    return count


@compiled
def lay_rows(
    batch: Any,
    row0: Number,
    count: Number,
    lanes: Number,
    columns: Array,
    at_place: Array,
    target_ids: Array,
) -> None:
    """Lay a block's states as columns of a (d, lanes) tile; its places and targets beside."""
    width = batch.width
    for lane in range(0, lanes, LANES):
        for d in range(0, width, LANES):
            transpose_square(
                columns, d * lanes + lane, lanes, batch.hidden, (row0 + lane) * width + d, width,
                min(LANES, count - lane),
            )  # fmt: skip
    for lane in range(lanes):
        at_place[lane] = np.float32(batch.places[row0 + lane]) if lane < count else _IDLE
        target_ids[lane] = np.int32(batch.targets[row0 + lane]) if lane < count else np.int32(0)


@compiled
def extent(at_place: Array, at: Number, end: Number) -> Any:
    """Return the smallest and the largest of some places."""
    nearest = furthest = at_place[at]
    for lane in range(at + 1, end):
        nearest, furthest = min(nearest, at_place[lane]), max(furthest, at_place[lane])
    return nearest, furthest


@compiled
def bucket_range(bucket_of: Array, key: Number, nearest: Number, furthest: Number) -> Any:
    """Return the lowest and the highest bucket of distances from a key to places of a range."""
    before, behind = np.int64(nearest) - key, key - np.int64(furthest)
    return bucket_of[max(before, behind, 0)], bucket_of[max(-before, -behind)]


@inlined
def distance(place: Any, key: Any) -> Any:
    """Distance of each lane's place from a key."""
    gap = subtract(place, splat(np.float32(key)))
    return maximum(gap, subtract(splat(_ZERO), gap))


@inlined
def of_bucket(table: Any, first: Any, last: Any, far: Any) -> Any:
    """Look up each lane's entry by its distance, known to lie in buckets `first` to `last`."""
    found = splat(table[first])
    for bucket in range(first + 1, last + 1):
        found = select_within(far, np.float32(1 << bucket), ANY, splat(table[bucket]), found)
    return found
