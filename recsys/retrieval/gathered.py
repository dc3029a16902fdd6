"""Small indexes over the vectors of an allow-list or category, kept for the next request with the same."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from recsys.kernels.rescoring import digest, same_lists
from recsys.retrieval.filters import Ints

BYTES_KEPT = 64 * 2**20


class GatheredIndexes:
    """A bounded cache from a set of allowed items to the index over their vectors; safe to share by threads.

    Args:
        make: builds an index over the vectors of some items.
        item_bytes: bytes that an item takes in it.
        bytes_kept: most bytes kept; the least recently used go first. A larger set is built and not kept.
    """

    def __init__(self, make: Callable[[Ints], Any], item_bytes: int, bytes_kept: int = BYTES_KEPT) -> None:
        self._make = make
        self._item_bytes = item_bytes
        self._bytes_kept = bytes_kept
        self._kept: OrderedDict[int, tuple[Ints, Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, allowed: Ints) -> Any:
        """The index over these items, in this order."""
        key = digest(allowed)
        with self._lock:
            found = self._kept.get(key)
            if found is not None and same_lists(found[0], allowed):
                self._kept.move_to_end(key)
                return found[1]
        made = self._make(allowed)
        size = self._size(allowed)
        with self._lock:
            if size <= self._bytes_kept and key not in self._kept:
                self._kept[key] = allowed.copy(), made
                self._bytes += size
            while self._bytes > self._bytes_kept:
                _, (dropped, _) = self._kept.popitem(last=False)
                self._bytes -= self._size(dropped)
        return made

    def _size(self, allowed: Ints) -> int:
        return len(allowed) * (self._item_bytes + allowed.itemsize)
