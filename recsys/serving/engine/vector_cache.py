"""Users' query vectors kept between requests: what is asked again costs no encoding."""

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

_OVERHEAD = 400
"""Bytes of an entry beside its numbers: key, array and places in the tables, 310 of them as measured."""


class VectorCache:
    """Vectors by key, the least recently used go first. Used by one thread.

    Args:
        most_bytes: that are kept; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[Hashable, Vectors] = OrderedDict()
        self.bytes = 0
        """Bytes that are kept."""
        self.evictions = 0
        """Entries that had to go so far."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Vectors | None:
        """(s, d) float32 vectors that were put under a key, or None."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, vectors: Vectors) -> None:
        """Keep vectors; those that are larger than all that may be kept are not."""
        # A slice of a batch's states would keep all of them.
        own = np.array(vectors, dtype=np.float32)
        own.flags.writeable = False
        size = own.nbytes + _OVERHEAD
        if size > self._most:
            return
        self._drop(key)
        while self.bytes + size > self._most:
            self._drop(next(iter(self._kept)))
            self.evictions += 1
        self._kept[key] = own
        self.bytes += size

    def _drop(self, key: Hashable) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self.bytes -= old.nbytes + _OVERHEAD
