"""Passes over the histories of rows, read in place: row r's history is items[starts[r] : ends[r]] of a log.

What is found depends on its row alone: the same bits whatever the number of threads.

Legend: N events, V items, R rows, E events of all rows' histories.
"""

import numpy as np
from numpy.typing import NDArray

from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import Array, Number, compiled, next_task

__all__ = ["copy_histories", "holds", "items_ahead"]

Ints = NDArray[np.int64]

_TURN = 64
"""Rows that a thread takes at once."""


def copy_histories(items: NDArray[np.int32], starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Lay the histories end to end.

    Args:
        items: (N,) int32 item of each event.
        starts: (R,) int64 first positions, unchecked.
        ends: (R,) int64 positions past the end, ends >= starts.

    Returns:
        ids (E,) int64, in the order of the log and with its repeats, and offsets (R + 1,) int64.
    """
    offsets = np.zeros(len(starts) + 1, dtype=np.int64)
    np.cumsum(ends - starts, out=offsets[1:])
    ids = np.empty(offsets[-1], dtype=np.int64)
    _launch(copy_worker, len(ids), items, starts, ends, offsets, ids)
    return ids, offsets


def holds(items: NDArray[np.int32], starts: Ints, ends: Ints, wanted: Ints) -> NDArray[np.bool_]:
    """Say for each row whether its history holds the item wanted[r]: (R,) bool.

    Args:
        items: (N,) int32.
        starts: (R,) int64, unchecked.
        ends: (R,) int64, unchecked.
        wanted: (R,) int64.
    """
    found = np.empty(len(wanted), dtype=np.bool_)
    _launch(holds_worker, int((ends - starts).sum()), items, starts, ends, wanted, found)
    return found


def items_ahead(
    items: NDArray[np.int32], starts: Ints, ends: Ints, values: Ints, wanted: Ints
) -> tuple[Ints, Ints]:
    """Count the distinct items of each history, but the wanted one, whose value is above or level with its.

    Args:
        items: (N,) int32 item of each event, in [0, V).
        starts: (R,) int64, unchecked.
        ends: (R,) int64, unchecked.
        values: (V,) int64 value of each item.
        wanted: (R,) int64 in [0, V), unchecked.

    Returns:
        Above and level, (R,) int64 each.
    """
    above, level = np.empty(len(wanted), dtype=np.int64), np.empty(len(wanted), dtype=np.int64)
    steps = 3 * int((ends - starts).sum())
    _launch(ahead_worker, steps, items, starts, ends, values, wanted, above, level)
    return above, level


def _launch(worker: Number, steps: int, items: NDArray[np.int32], starts: Ints, *others: Array) -> None:
    # A memory map compiles as the array that it is.
    threads = threads_for(-(-len(starts) // _TURN), steps)
    launch(worker, threads, *(np.ascontiguousarray(x) for x in (items.view(np.ndarray), starts, *others)))


@compiled
def copy_worker(
    slot: Number, queue: Array, items: Array, starts: Array, ends: Array, offsets: Array, ids: Array
) -> None:
    """Write each row's items to ids from offsets[row]."""
    while True:
        first = next_task(queue) * _TURN
        if first >= len(starts):
            return
        for row in range(first, min(len(starts), first + _TURN)):
            start, to = starts[row], offsets[row]
            for at in range(ends[row] - start):
                ids[to + at] = items[start + at]


@compiled
def holds_worker(
    slot: Number, queue: Array, items: Array, starts: Array, ends: Array, wanted: Array, found: Array
) -> None:
    """Compare each row's items with the wanted one."""
    while True:
        first = next_task(queue) * _TURN
        if first >= len(starts):
            return
        for row in range(first, min(len(starts), first + _TURN)):
            item = np.int32(wanted[row])
            times = np.int32(0)
            for at in range(starts[row], ends[row]):  # to the end: so it becomes vectors
                times += np.int32(items[at] == item)
            found[row] = times > 0


@compiled
def ahead_worker(
    slot: Number,
    queue: Array,
    items: Array,
    starts: Array,
    ends: Array,
    values: Array,
    wanted: Array,
    above: Array,
    level: Array,
) -> None:
    """Count what `items_ahead` counts; an item is taken where its mark is not yet the row's."""
    marks = np.full(len(values), -1, dtype=np.int64)
    while True:
        first = next_task(queue) * _TURN
        if first >= len(starts):
            return
        for row in range(first, min(len(starts), first + _TURN)):
            marks[wanted[row]] = row
            own = values[wanted[row]]
            over, same = np.int64(0), np.int64(0)
            for at in range(starts[row], ends[row]):
                item = items[at]
                fresh = np.int64(marks[item] != row)
                marks[item] = row
                over += fresh & np.int64(values[item] > own)
                same += fresh & np.int64(values[item] == own)
            above[row], level[row] = over, same
