"""Spans of events: gathering many histories at once, their distinct items, and membership of a target.

A span is a half-open range [start, end) of absolute positions in a store's `items` array.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.jagged import flat_ranges

Ints = NDArray[np.int64]

# Events gathered at once by the passes over whole logs: 4 M int64 keys are 32 MB.
EVENTS_PER_CHUNK = 4_000_000


def expand_spans(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """List every position of the spans, one span after the other.

    Args:
        starts: (R,) int64 first positions.
        ends: (R,) int64 positions past the end, ends >= starts.

    Returns:
        positions: (E,) int64, and offsets: (R+1,) int64 with span r at positions[offsets[r]:offsets[r+1]].
    """
    offsets = np.zeros(len(starts) + 1, dtype=np.int64)
    np.cumsum(ends - starts, out=offsets[1:])
    return flat_ranges(starts, ends), offsets


def distinct_items(items: NDArray[np.int32], starts: Ints, ends: Ints, n_items: int) -> tuple[Ints, Ints]:
    """List the distinct items of each span in ascending order.

    Args:
        items: (N,) int32 item of each event, in [0, n_items).
        starts: (R,) int64.
        ends: (R,) int64.
        n_items: size of the catalog.

    Returns:
        ids: (E,) int64 and offsets: (R+1,) int64, the jagged pair that the ranking kernel takes as `exclude`.
    """
    from recsys.kernels.ranking.cpu_top_k_exclude import distinct_lists
    from recsys.kernels.shared.histories import copy_histories

    return distinct_lists(*copy_histories(items, starts, ends), n_items)


def chunk_rows(lengths: Ints, budget: int = EVENTS_PER_CHUNK) -> Iterator[slice]:
    """Cut rows into consecutive slices of about `budget` events each, at least one row per slice."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + budget, side="right"))
        last = max(last, first + 1)
        yield slice(first, last)
        first = last


def span_contains(items: NDArray[np.int32], starts: Ints, ends: Ints, wanted: Ints) -> NDArray[np.bool_]:
    """Say for each row whether its span holds the wanted item.

    Args:
        items: (N,) int32.
        starts: (R,) int64.
        ends: (R,) int64.
        wanted: (R,) int64 item looked for in each row's span.

    Returns:
        (R,) bool.
    """
    from recsys.kernels.shared.histories import holds

    return holds(items, starts, ends, wanted)
