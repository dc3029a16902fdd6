"""What is kept between requests, within a number of bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class SizedCache(Generic[V]):
    """Values by key, the least recently used go first. Used by one thread.

    Args:
        most_bytes: that are kept; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self.bytes = 0
        """Bytes that are kept."""
        self.evictions = 0
        """Entries that had to go so far."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> V | None:
        """What was kept under a key, or None."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def keep(self, key: Hashable, value: V, size: int) -> None:
        """Keep a value of so many bytes; one that is larger than all that may be kept is not."""
        if size > self._most:
            return
        self._drop(key)
        while self.bytes + size > self._most:
            self._drop(next(iter(self._kept)))
            self.evictions += 1
        self._kept[key] = value, size
        self.bytes += size

    def _drop(self, key: Hashable) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self.bytes -= old[1]
