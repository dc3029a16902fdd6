"""Approximate kinds of FAISS: what of a search all of them share."""

from typing import Any, Protocol

from torch import Tensor

from recsys.retrieval.approximate import ApproximateBackend
from recsys.retrieval.faiss_library import bitmap_selector, load_faiss, searching
from recsys.retrieval.filters import Ints
from recsys.retrieval.flat import FlatBackend
from recsys.retrieval.metric import Floats32, Metric
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import Engine


class FaissSearch(Protocol):
    """An approximate FAISS index over V items."""

    @property
    def engine(self) -> Engine:
        """What it can do."""

    def find(self, queries: Floats32, count: int, selector: Any) -> Ints:
        """Return (b, m) int64 ids of likely best items, -1 where it found no more.

        Args:
            queries: (b, d) float32.
            count: items wanted per query.
            selector: a FAISS selector of the allowed items, or None.

        Raises:
            RetrievalError: it cannot honour a selector.
        """

    def parts(self) -> dict[str, Tensor]:
        """What took long to build."""


class FaissProposer:
    """A FAISS index as a `Proposer`: allowed items as a selector, and the thread number of the options."""

    def __init__(self, search: FaissSearch, n_items: int, threads: int) -> None:
        self._faiss = load_faiss()
        self.search = search
        self._n_items = n_items
        self._threads = threads

    @property
    def engine(self) -> Engine:
        """See `Proposer`."""
        return self.search.engine

    def propose(self, queries: Floats32, count: int, allowed: Ints | None) -> Ints:
        """See `Proposer`."""
        selector = None if allowed is None else bitmap_selector(self._faiss, allowed, self._n_items)
        with searching(self._faiss, self._threads):
            return self.search.find(queries, count, selector)

    def parts(self) -> dict[str, Tensor]:
        """See `Proposer`."""
        return self.search.parts()


def over_flat(
    flat: FlatBackend, search: FaissSearch, metric: Metric, options: IndexOptions
) -> ApproximateBackend:
    """The backend of an approximate FAISS index over a flat one with the same vectors."""
    return ApproximateBackend(flat, FaissProposer(search, flat.shape[0], options.threads), metric)
