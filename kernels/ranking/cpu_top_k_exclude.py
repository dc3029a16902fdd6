"""Lists of excluded items put in ascending order without repeats, as top-k on the CPU reads them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.kernels.ranking.reference import Jagged
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import Array, Number, compiled, lowest_bit, next_task

_SHORT = 24
"""Entries up to which a list is sorted by insertion; a longer one goes through a bitmap of the catalog."""

_TURN = 64
"""Rows that a thread takes at once."""


class Excluded(NamedTuple):
    """Row r's items, ascending: items[starts[r] : ends[r]]. All three are empty where nothing is excluded."""

    items: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


_NONE = np.empty(0, dtype=np.int64)


def excluded_items(
    exclude: Jagged | None, first: int, count: int, items: int, places: NDArray[np.int64] | None = None
) -> Excluded:
    """Order the lists of `count` rows from row `first`.

    Args:
        exclude: (ids, offsets) of all rows, or None.
        first: the first row.
        count: how many rows.
        items: V, of which the ids are.
        places: (V,) what stands for each id, ascending with it, or -1 to leave it out; None for the ids.
    """
    if exclude is None or len(exclude[0]) == 0:
        return Excluded(_NONE, _NONE, _NONE)
    bounds = exclude[1][first : first + count + 1].contiguous().numpy()
    ids = exclude[0].contiguous().numpy()[bounds[0] : bounds[-1]]
    return _order(ids, bounds - bounds[0], items, places)


def distinct_lists(
    ids: NDArray[np.int64], offsets: NDArray[np.int64], items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put each list in ascending order without repeats.

    Args:
        ids: (E,) int64 in [0, items), unchecked.
        offsets: (R + 1,) int64 from 0 to E.
        items: V.

    Returns:
        ids (E',) and offsets (R + 1,).
    """
    ordered, starts, ends = _order(ids, offsets, items, None)
    sums = np.append(0, np.cumsum(ends - starts))
    if sums[-1] == len(ids):
        return ordered, offsets
    # Up at a list's start, down at its end: the running sum is 1 over what stays.
    steps = np.zeros(len(ids) + 1, dtype=np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return ordered[np.cumsum(steps[:-1]) > 0], sums


def _order(
    ids: NDArray[np.int64], bounds: NDArray[np.int64], items: int, places: NDArray[np.int64] | None
) -> Excluded:
    ordered = np.empty(len(ids), dtype=np.int64)
    starts, ends = bounds[:-1].copy(), np.empty(len(bounds) - 1, dtype=np.int64)
    launch(
        order_worker,
        threads_for(-(-len(ends) // _TURN), 10 * len(ids)),
        ids,
        starts,
        bounds[1:].copy(),
        items,
        _NONE if places is None else places,
        ordered,
        ends,
    )
    return Excluded(ordered, starts, ends)


@compiled
def order_worker(
    slot: Number,
    queue: Array,
    ids: Array,
    starts: Array,
    stops: Array,
    items: Number,
    places: Array,
    ordered: Array,
    ends: Array,
) -> None:
    """Write row r's ids[starts[r] : stops[r]] in order to the same place of `ordered`, up to ends[r]."""
    seen = np.zeros((items + 63) // 64, dtype=np.int64)
    while True:
        turn = next_task(queue)
        if turn * _TURN >= len(starts):
            return
        for row in range(turn * _TURN, min(len(starts), (turn + 1) * _TURN)):
            start, end = starts[row], starts[row]
            short = stops[row] - start <= _SHORT
            low, high = len(seen), -1
            first = start
            if len(places) == 0:  # what is in order already stays as it is
                while first < stops[row] and (first == start or ids[first] > ids[first - 1]):
                    ordered[first] = ids[first]
                    first += 1
                if first == stops[row]:
                    ends[row] = first
                    continue
            for at in range(start, stops[row]):
                item = ids[at]
                if len(places) > 0:
                    item = places[item]
                    if item < 0:
                        continue
                if short:
                    place = end
                    while place > start and ordered[place - 1] > item:
                        place -= 1
                    if place > start and ordered[place - 1] == item:
                        continue
                    for other in range(end, place, -1):
                        ordered[other] = ordered[other - 1]
                    ordered[place] = item
                    end += 1
                else:
                    seen[item >> 6] |= np.int64(1) << (item & 63)
                    low, high = min(low, item >> 6), max(high, item >> 6)
            for word in range(low, high + 1):
                mask = seen[word]
                seen[word] = 0
                while mask != 0:
                    ordered[end] = word * 64 + lowest_bit(mask)
                    mask &= mask - 1
                    end += 1
            ends[row] = end
