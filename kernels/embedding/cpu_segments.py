"""Sums of gradient rows by id: ids sorted once, each id's rows added in the order of their events.

No atomics and no partial sums that depend on the threads: a row of the result has one order of additions,
set by its own events alone.

Legend: M events, U distinct ids, d width.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.embedding.checks import check_range
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    fma,
    load,
    multiply,
    next_task,
    splat,
    store,
)

__all__ = ["Segments", "segment_sum", "sort_ids"]

DIGIT = 11
"""Bits sorted at a time: 2,048 counters of 8 bytes take half of the first cache."""

TASK_EVENTS = 2048
"""Events of a task of work; an id with more makes a larger one."""


class Segments(NamedTuple):
    """Events grouped by id, ids ascending, events of one id in their own order."""

    order: NDArray[np.int64]
    """(M,) events."""

    starts: NDArray[np.int64]
    """(U + 1,) where each id's events begin in `order`."""

    ids: NDArray[np.int64]
    """(U,) distinct ids."""


def sort_ids(ids: Tensor, rows: int) -> Segments:
    """Group events by id, by a stable radix sort in O(M).

    Args:
        ids: (M,) int64 on the CPU, in [0, rows).
        rows: of the table that ids point into.

    Raises:
        ArgumentError: an id is out of range.
    """
    keys = ids.contiguous().numpy()
    count = len(keys)
    if count:
        check_range(int(keys.min()), int(keys.max()), rows)
    passes = max(1, -(-(rows - 1).bit_length() // DIGIT))
    order, sorted_keys = sort_pairs(keys, passes, *(np.empty(count, np.int64) for _ in range(4)))
    starts, distinct = np.empty(count, np.int64), np.empty(count, np.int64)
    found = find_segments(sorted_keys, starts, distinct)
    return Segments(order, np.append(starts[:found], count), distinct[:found].copy())


def segment_sum(
    segments: Segments,
    rows: Tensor,
    *,
    per_row: int = 1,
    coefficients: Tensor | None = None,
    per_coefficient: int = 1,
) -> Tensor:
    """Sum the rows of each id's events, each times its coefficient.

    Args:
        segments: of M events.
        rows: (M / per_row, d) float32; event e has row e // per_row.
        per_row: events that share a row.
        coefficients: M / per_coefficient float32 values in any shape; event e has value
            e // per_coefficient. None for ones.
        per_coefficient: events that share a coefficient.

    Returns:
        (U, d) float32.
    """
    width = rows.shape[1]
    out = rows.new_empty(len(segments.ids), width)
    # Tasks end at the id that holds each multiple of TASK_EVENTS.
    multiples = np.arange(TASK_EVENTS, len(segments.order) + TASK_EVENTS, TASK_EVENTS)
    bounds = np.unique(
        np.concatenate(([0], np.searchsorted(segments.starts, multiples), [len(segments.ids)]))
    )
    bounds = bounds[bounds <= len(segments.ids)]
    launch(
        sum_worker,
        threads_for(len(bounds) - 1, len(segments.order) * (width + 16)),
        bounds,
        segments.order,
        segments.starts,
        flat(rows),
        width,
        per_row,
        flat(coefficients),
        per_coefficient,
        flat(out),
    )
    return out


@compiled
def sort_pairs(keys: Array, passes: Number, order: Array, spare: Array, values: Array, other: Array) -> Any:
    """Sort (key, position) pairs by `passes` digits, lowest first; return positions and keys in order."""
    count = len(keys)
    counters = np.empty(1 << DIGIT, np.int64)
    mask = (1 << DIGIT) - 1
    for position in range(count):
        spare[position] = position
        other[position] = keys[position]
    from_order, to_order, from_keys, to_keys = spare, order, other, values
    for turn in range(passes):
        shift = turn * DIGIT
        counters[:] = 0
        for position in range(count):
            counters[(from_keys[position] >> shift) & mask] += 1
        before = 0
        for digit in range(1 << DIGIT):
            size = counters[digit]
            counters[digit] = before
            before += size
        for position in range(count):
            key = from_keys[position]
            digit = (key >> shift) & mask
            place = counters[digit]
            counters[digit] = place + 1
            to_keys[place] = key
            to_order[place] = from_order[position]
        from_order, to_order = to_order, from_order
        from_keys, to_keys = to_keys, from_keys
    return from_order, from_keys


@compiled
def find_segments(keys: Array, starts: Array, distinct: Array) -> int:
    """Write where each run of equal keys starts, and its key; return how many runs there are."""
    found = 0
    for position in range(len(keys)):
        if position == 0 or keys[position] != keys[position - 1]:
            starts[found] = position
            distinct[found] = keys[position]
            found += 1
    return found


@compiled
def sum_worker(
    slot: Number,
    queue: Array,
    bounds: Array,
    order: Array,
    starts: Array,
    rows: Array,
    width: Number,
    per_row: Number,
    coefficients: Array,
    per_coefficient: Number,
    out: Array,
) -> None:
    """Sum the segments bounds[task] to bounds[task + 1]."""
    whole = width - width % LANES
    weighted = len(coefficients) > 0
    while True:
        task = next_task(queue)
        if task >= len(bounds) - 1:
            return
        for segment in range(bounds[task], bounds[task + 1]):
            to = segment * width
            for place in range(starts[segment], starts[segment + 1]):
                event = order[place]
                source = event // per_row * width
                first = place == starts[segment]
                if weighted:
                    factor = coefficients[event // per_coefficient]
                    many = splat(factor)
                    if first:
                        for d in range(0, whole, LANES):
                            store(out, to + d, multiply(many, load(rows, source + d)))
                        for d in range(whole, width):
                            out[to + d] = factor * rows[source + d]
                    else:
                        for d in range(0, whole, LANES):
                            store(out, to + d, fma(many, load(rows, source + d), load(out, to + d)))
                        for d in range(whole, width):
                            out[to + d] += factor * rows[source + d]
                elif first:
                    for d in range(0, whole, LANES):
                        store(out, to + d, load(rows, source + d))
                    for d in range(whole, width):
                        out[to + d] = rows[source + d]
                else:
                    for d in range(0, whole, LANES):
                        store(out, to + d, add(load(out, to + d), load(rows, source + d)))
                    for d in range(whole, width):
                        out[to + d] += rows[source + d]
