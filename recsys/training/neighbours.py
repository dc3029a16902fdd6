"""Where items without a history of their own begin: at the items that stand beside them in the log.

A new item's vector starts as the mean of the vectors of the items up to `WINDOW` places before or after it in
training sequences, each as often as it stands there. It counts in the first epochs; later, training has
brought random vectors as far (benchmarks/growing.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.sharded_store import ShardedStore
from recsys.datasets.prepared.store import SequenceStore

__all__ = ["WINDOW", "Bags", "neighbour_bags", "pairs_beside"]

WINDOW = 5
"""Places on either side of an item that count as beside it."""
PASSES = 3
"""An item whose neighbours are all new begins at those of them that have begun by then."""
BLOCK = 2**22
"""Events that are looked at at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """Items, and for each the items whose weighted mean it starts from.

    Attributes:
        items: (M,) int64, rising.
        offsets: (M + 1,) int64: item m's neighbours are the entries from m to m + 1.
        rows: (T,) int64 items.
        weights: (T,) float32, of each item 1 in sum.
    """

    items: NDArray[np.int64]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.float32]


def neighbour_bags(
    store: SequenceStore, known: NDArray[np.bool_], window: int = WINDOW, passes: int = PASSES
) -> list[Bags]:
    """What the items that are not known start from, in the order in which they have to be made.

    Args:
        store: whose training events are looked at.
        known: (V,) items that have a vector.
        window: places on either side.
        passes: the first is over known neighbours; each further one knows the items of those before, too.
    """
    new, beside, counts = pairs_beside(store, ~known, window)
    ready, found = known.copy(), []
    for _ in range(passes):
        chosen = ready[beside] & ~ready[new]
        if not chosen.any():
            break
        items, starts = np.unique(new[chosen], return_index=True)
        offsets = np.append(starts, np.count_nonzero(chosen)).astype(np.int64)
        weights = counts[chosen] / np.repeat(np.add.reduceat(counts[chosen], starts), np.diff(offsets))
        found.append(Bags(items, offsets, beside[chosen], weights.astype(np.float32)))
        ready[items] = True
    return found


def pairs_beside(
    store: SequenceStore, asked: NDArray[np.bool_], window: int = WINDOW
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Items, other items beside them in training, and how often; by item and neighbour, each pair once.

    Args:
        store: whose training events are looked at.
        asked: (V,) items whose neighbours are.
        window: places on either side.
    """
    keys, counts = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for items, user in _training_events(store):
        for shift in range(1, window + 1):
            same = user[:-shift] == user[shift:]
            earlier, later = items[:-shift][same], items[shift:][same]
            for one, other in ((earlier, later), (later, earlier)):
                wanted = asked[one] & (one != other)
                key, count = np.unique(one[wanted] * store.n_items + other[wanted], return_counts=True)
                keys.append(key)
                counts.append(count)
    key, places = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(places, weights=np.concatenate(counts), minlength=len(key)).astype(np.int64)
    return key // store.n_items, key % store.n_items, total


def _training_events(store: SequenceStore) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    if not isinstance(store, ShardedStore):
        yield from _blocks(store)
        return
    for number in range(store.n_shards):
        yield from _blocks(store.shard(number))


def _blocks(store: SequenceStore) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training events of whole users: their items and their users."""
    lengths = store.valid_start - store.offsets[:-1]
    ends = np.cumsum(lengths)
    first = 0
    while first < store.n_users:
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + BLOCK, side="right")))
        count = lengths[first:last]
        inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        places = np.repeat(store.offsets[first:last], count) + inside
        yield store.items[places].astype(np.int64), np.repeat(np.arange(first, last), count)
        first = last
