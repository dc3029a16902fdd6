"""Which users took which items in training, and how many took two of them together."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.spans import chunk_rows, distinct_items, expand_spans
from recsys.evaluation.targets import PreparedLog

CELLS_AT_ONCE = 8_000_000
"""Co-occurrence counts that are held at once."""


class TrainingPairs:
    """The distinct (user, item) pairs of the training events, by user and by item."""

    def __init__(self, store: PreparedLog) -> None:
        self.n_items = store.n_items
        starts = np.asarray(store.offsets[:-1], dtype=np.int64)
        ends = np.asarray(store.valid_start, dtype=np.int64)
        self.items, self.offsets = distinct_items(store.items, starts, ends, store.n_items)
        users = np.repeat(np.arange(len(starts), dtype=np.int64), np.diff(self.offsets))
        self.users = users[np.argsort(self.items, kind="stable")]
        self.item_users = np.bincount(self.items, minlength=store.n_items)
        self.item_offsets = np.concatenate(([0], np.cumsum(self.item_users)))

    def together(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Numbers of users with both of two items: blocks (first item, (m, V) float64), in order."""
        size = max(1, CELLS_AT_ONCE // self.n_items)
        for first in range(0, self.n_items, size):
            last = min(first + size, self.n_items)
            counts = np.zeros((last - first) * self.n_items)
            span = slice(int(self.item_offsets[first]), int(self.item_offsets[last]))
            users = self.users[span]
            item = np.repeat(np.arange(last - first, dtype=np.int64), self.item_users[first:last])
            starts, ends = self.offsets[users], self.offsets[users + 1]
            for part in chunk_rows(ends - starts):
                places, offsets = expand_spans(starts[part], ends[part])
                row = np.repeat(item[part], np.diff(offsets))
                counts += np.bincount(row * self.n_items + self.items[places], minlength=len(counts))
            yield first, counts.reshape(last - first, self.n_items)
