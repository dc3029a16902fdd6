"""Small indexes over the vectors of an allow-list or category, kept for the next request with the same."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from recsys.forks import Lock
from recsys.kernels.rescoring import LANES, digest, rescore_gathered, same_lists
from recsys.retrieval.filters import Filters, Ints
from recsys.retrieval.metric import Answers, Floats32, Metric, finished

BYTES_KEPT = 64 * 2**20

PRODUCTS_ON_ONE_THREAD = 2**25
"""A scan of gathered items with up to so many multiply-adds, about two milliseconds, is our kernel's, on the
calling thread; beyond, others may use all of theirs."""


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
        self._lock = Lock()

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


def scan_on_this_thread(
    queries: Floats32,
    vectors: Floats32,
    table: Floats32,
    k: int,
    *,
    excluded: int,
    longest_item: float,
    metric: Metric,
    filters: Filters,
    rows: Ints,
) -> tuple[Floats32, Ints]:
    """Scan the gathered candidates by inner product and order what is found, in one compiled call.

    Args:
        queries: (r, d) of them.
        vectors: (V, d) of the catalog.
        table: (n, d) of the filters' candidates.
        k: answers per query.
        excluded: most items that a query's exclusions take away.
        longest_item: greatest Euclidean length of a vector.
        metric: of the scores; not l2.
        filters: of the whole batch, with candidates.
        rows: (r,) places of the queries in it.

    Returns:
        (r, k) scores and ids.
    """
    answers = Answers.of(len(rows), k)
    assert filters.candidates is not None
    refused, doubts = rescore_gathered(
        queries,
        table,
        filters.candidates,
        filters.ids,
        filters.offsets,
        rows,
        k,
        excluded,
        longest_item,
        LANES,
        *answers,
    )
    return finished(queries, vectors, answers, refused, doubts, metric, filters, rows)
