"""The `flat` kind: FAISS's IndexFlatIP or IndexFlatL2, exact, with filters that it cannot get wrong.

- Exclusions: k + |excluded| items are fetched and the excluded dropped. That is exact for a flat index and
  cheaper than an IDSelector, which keeps FAISS from using BLAS.
- Short allow-lists: the allowed vectors are gathered and scanned as an index of their own, which is kept.
- Long ones: a bitmap selector for a few queries, a gathered copy for many.
- Every id is checked against the filters here, whatever FAISS returned.
"""

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import RetrievalError
from recsys.kernels.rescoring import SLACK
from recsys.retrieval.backends import Parts
from recsys.retrieval.counters import Counters
from recsys.retrieval.faiss_library import bitmap_selector, load_faiss, lower_blas_threshold, searching
from recsys.retrieval.filters import Filters, Ints
from recsys.retrieval.gathered import PRODUCTS_ON_ONE_THREAD, GatheredIndexes, scan_on_this_thread
from recsys.retrieval.metric import (
    Floats32,
    Metric,
    Proposals,
    longest,
    order_exactly,
)
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import Engine, Step, plan


class FlatBackend:
    """A FAISS flat index on the CPU, or its copy on a GPU.

    Args:
        index: a filled IndexFlat on the CPU; it keeps the only copy of the vectors there.
        metric: how it scores.
        options: of which `threads` is read.
        device_index: the same on a GPU, which then answers fetches up to `deepest`; one thread at a time.
        deepest: most items that it returns for a query.
    """

    exact = True
    owner: Any = None
    """Whatever must live as long as the index."""

    def __init__(
        self,
        index: Any,
        metric: Metric,
        options: IndexOptions,
        *,
        device_index: Any = None,
        deepest: int | None = None,
    ) -> None:
        self._faiss = load_faiss()
        self._metric = metric
        self._threads = options.threads
        self._index = index
        self._device_index = device_index
        # A GPU index must not be used by two threads at once, not even to read.
        self._one_at_a_time: AbstractContextManager[Any] = nullcontext()
        if device_index is not None:
            self._one_at_a_time = threading.Lock()
        self._engine = Engine(
            exact=True,
            selectors=device_index is None,
            selector_share=0.0,
            deepest=index.ntotal if deepest is None else deepest,
        )
        # A view of the index's own storage: the vectors are held once.
        self.array: Floats32 = _stored(self._faiss, index)
        lower_blas_threshold(self._faiss, index.d)
        self.longest = longest(self.array)
        self._gathered = GatheredIndexes(self._gather, index.d * 4)
        self.counters = Counters()

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""
        return self.array.shape[0], self.array.shape[1]

    @property
    def vectors(self) -> Tensor:
        """(V, d) float32 copy of the stored vectors."""
        return torch.from_numpy(self.array.copy())

    def search_exactly(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """As `search`."""
        return self.search(queries, k, filters)

    def parts(self) -> dict[str, Tensor]:
        """Nothing beside the vectors."""
        return {}

    def search(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """Return the k best permitted items of each query; see `SearchBackend`."""
        scores, ids = self.search_arrays(queries.cpu().numpy(), k, filters)
        return torch.from_numpy(scores), torch.from_numpy(ids)

    def search_arrays(self, queries: Floats32, k: int, filters: Filters) -> tuple[Floats32, Ints]:
        """As `search`, for arrays: for one query a tensor and back takes as long as the search."""
        steps = plan(filters, k, self._engine)
        if len(steps) == 1:
            return self._answer(steps[0], queries, k, filters, steps[0].rows)
        return self._search_steps(steps, queries, k, filters, np.arange(len(queries), dtype=np.int64))

    def search_rows(self, queries: Floats32, k: int, filters: Filters, chosen: Ints) -> tuple[Floats32, Ints]:
        """Answer some queries of a batch.

        Args:
            queries: (b, d) float32, the whole batch.
            k: answers per query.
            filters: of the whole batch.
            chosen: (r,) int64 queries to answer, each once, in any order.

        Returns:
            (r, k) scores and ids, in the order of `chosen`.
        """
        if len(chosen) == len(queries):
            scores, ids = self.search_arrays(queries, k, filters)
            return scores[chosen], ids[chosen]
        return self._search_steps(plan(filters, k, self._engine), queries, k, filters, chosen)

    def _search_steps(
        self, steps: list[Step], queries: Floats32, k: int, filters: Filters, chosen: Ints
    ) -> tuple[Floats32, Ints]:
        scores = np.empty((len(chosen), k), dtype=np.float32)
        ids = np.empty((len(chosen), k), dtype=np.int64)
        place = np.full(len(queries), -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        for step in steps:
            rows = step.rows[place[step.rows] >= 0]
            if len(rows):
                there = place[rows]
                scores[there], ids[there] = self._answer(step, queries[rows], k, filters, rows)
        return scores, ids

    def _answer(
        self, step: Step, queries: Floats32, k: int, filters: Filters, rows: Ints
    ) -> tuple[Floats32, Ints]:
        """Answer (r, d) queries, which stand in these rows of the filters, in one way."""
        self.counters.add(step.how, len(rows))
        gathered, index, selector = None, self._index, None
        if step.how == "gather":
            assert filters.candidates is not None
            index, table = self._gathered.get(filters.candidates)
            if self._metric != "l2" and len(table) * queries.size <= PRODUCTS_ON_ONE_THREAD:
                return scan_on_this_thread(
                    queries,
                    self.array,
                    table,
                    k,
                    excluded=step.excluded,
                    longest_item=self.longest,
                    metric=self._metric,
                    filters=filters,
                    rows=rows,
                )
            gathered = filters.candidates, table
        elif step.how == "selector":
            assert filters.candidates is not None
            selector = bitmap_selector(self._faiss, filters.candidates, filters.n_items)
        fetched = min(index.ntotal, k + step.excluded + SLACK)
        on_device = (
            index is self._index and self._device_index is not None and fetched <= self._engine.deepest
        )
        if on_device:
            index = self._device_index
        with searching(self._faiss, self._threads), self._one_at_a_time if on_device else nullcontext():
            found, places = search_with(self._faiss, index, queries, fetched, selector)
        scores, ids, refused = order_exactly(
            queries,
            self.array,
            Proposals(places, found, fetched == index.ntotal, self._metric == "l2", gathered=gathered),
            k,
            metric=self._metric,
            longest_item=self.longest,
            filters=filters,
            rows=rows,
        )
        if selector is not None:
            self.counters.add("refused", refused)
        return scores, ids

    def _gather(self, allowed: Ints) -> tuple[Any, Floats32]:
        """An index over the vectors of some items, and a view of what it holds."""
        index = flat_index(self._faiss, self.array[allowed], self._metric)
        return index, _stored(self._faiss, index)


def _stored(faiss: Any, index: Any) -> Floats32:
    """A (V, d) view of a flat index's own storage, alive as long as the index."""
    stored: Floats32 = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return stored.reshape(index.ntotal, index.d)


def search_with(
    faiss: Any, index: Any, queries: Floats32, count: int, selector: Any
) -> tuple[Floats32, Ints]:
    """Search a FAISS index that scans, under a selector or none.

    Raises:
        RetrievalError: the index would ignore the selector, as classic GPU indexes do.
    """
    asked = np.ascontiguousarray(queries)
    if selector is None:
        return index.search(asked, count)  # type: ignore[no-any-return]
    if "Gpu" in type(index).__name__:
        raise RetrievalError("a GPU index ignores selectors: gather the allowed items, or search on the CPU")
    return index.search(asked, count, params=faiss.SearchParameters(sel=selector))  # type: ignore[no-any-return]


def flat_index(faiss: Any, vectors: Floats32, metric: Metric) -> Any:
    """A FAISS flat index over a copy of (V, d) float32 vectors."""
    flat = faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP
    index = flat(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return index


def build(vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None) -> FlatBackend:
    """Build the backend over a copy of the vectors."""
    return FlatBackend(flat_index(load_faiss(), vectors.cpu().numpy(), metric), metric, options)
