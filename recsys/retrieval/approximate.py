"""Approximate kinds: something proposes items, the flat index behind it scores them and fills the gaps.

Whatever proposes, the promises are those of an exact index: no filter is broken, scores are true, and a
query gets fewer than k answers only if fewer items are permitted; what may differ is which of the near-best
items are found. Queries that a filter leaves too few items are scanned exactly instead.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.retrieval.faiss_library import bitmap_selector, load_faiss, searching
from recsys.retrieval.filters import Filters, Ints
from recsys.retrieval.flat import FlatBackend
from recsys.retrieval.metric import Floats32, Metric, Proposals, order_exactly, rounding_margins
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import Engine, Step, plan
from recsys.retrieval.tallies import Tallies


class Proposer(Protocol):
    """An approximate index over V items."""

    @property
    def engine(self) -> Engine:
        """What it can do."""

    def propose(self, queries: Floats32, count: int, selector: Any) -> Ints:
        """Return (b, count) int64 ids of likely best items, -1 where it found no more.

        Args:
            queries: (b, d) float32.
            count: items wanted per query.
            selector: a FAISS selector of the allowed items, or None.

        Raises:
            RetrievalError: it cannot honour a selector.
        """

    def parts(self) -> dict[str, Tensor]:
        """What took long to build."""


class ApproximateBackend:
    """A proposer over a flat index.

    Args:
        flat: holds the vectors, scores and scans.
        proposer: finds likely items.
        metric: of the scores.
        options: of which `threads` is read.
    """

    exact = False

    def __init__(self, flat: FlatBackend, proposer: Proposer, metric: Metric, options: IndexOptions) -> None:
        self._faiss = load_faiss()
        self._flat = flat
        self._proposer = proposer
        self._metric = metric
        self._threads = options.threads
        self.tallies = Tallies()

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""
        return self._flat.shape

    @property
    def array(self) -> Floats32:
        """(V, d) float32 view of the stored vectors."""
        return self._flat.array

    @property
    def vectors(self) -> Tensor:
        """(V, d) float32 copy of the stored vectors."""
        return self._flat.vectors

    def search_exactly(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """The k best permitted items of each query, by a scan."""
        return self._flat.search(queries, k, filters)

    def parts(self) -> dict[str, Tensor]:
        """What the proposer saves."""
        return self._proposer.parts()

    def search(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """Return k likely best permitted items of each query; see `SearchBackend`."""
        asked: Floats32 = queries.cpu().numpy()
        rounding_margins(asked, self._flat.longest, self._metric)  # refuses scores beyond float32
        steps = plan(filters, k, self._proposer.engine)
        if len(steps) == 1 and steps[0].how not in ("gather", "scan"):
            scores, ids = self._ask(steps[0], asked, k, filters)
            self.tallies.add(steps[0].how, len(asked))
            if int(ids.min()) >= 0:
                return torch.from_numpy(scores), torch.from_numpy(ids)
            return self._completed(
                asked, k, filters, scores, ids, self._unfinished(steps[0].rows, ids, filters)
            )
        scores = np.empty((len(asked), k), dtype=np.float32)
        ids = np.empty((len(asked), k), dtype=np.int64)
        short = []
        for step in steps:
            rows = step.rows
            self.tallies.add(step.how, len(rows))
            if step.how in ("gather", "scan"):
                scores[rows], ids[rows] = self._flat.search_rows(asked, k, filters, rows)
                continue
            scores[rows], ids[rows] = self._ask(step, asked[rows], k, filters)
            short.append(self._unfinished(rows, ids[rows], filters))
        left = np.concatenate(short) if short else np.zeros(0, dtype=np.int64)
        return self._completed(asked, k, filters, scores, ids, left)

    def _completed(
        self, asked: Floats32, k: int, filters: Filters, scores: Floats32, ids: Ints, left: Ints
    ) -> tuple[Tensor, Tensor]:
        """Answers, after an exact scan for the queries that were left short."""
        if len(left):
            self.tallies.add("completed", len(left))
            scores[left], ids[left] = self._flat.search_rows(asked, k, filters, left)
        return torch.from_numpy(scores), torch.from_numpy(ids)

    def _ask(self, step: Step, queries: Floats32, k: int, filters: Filters) -> tuple[Floats32, Ints]:
        selector = None
        if step.how == "selector":
            assert filters.candidates is not None
            selector = bitmap_selector(self._faiss, filters.candidates, filters.n_items)
        count = min(filters.n_items, k + step.excluded)
        with searching(self._faiss, self._threads):
            found = self._proposer.propose(queries, count, selector)
        permitted = filters.permits(found, step.rows)
        if selector is not None:
            wrong = (found >= 0) & ~np.isin(found, filters.candidates)  # type: ignore[arg-type]
            self.tallies.add("refused", int(wrong.sum()))
        proposals = Proposals(_distinct(np.where(permitted, found, -1)), np.full(len(queries), -np.inf))
        return order_exactly(
            queries,
            self._flat.array,
            proposals,
            k,
            metric=self._metric,
            margins=np.zeros(len(queries)),
            filters=filters,
            rows=step.rows,
        )

    def _unfinished(self, rows: Ints, ids: Ints, filters: Filters) -> Ints:
        """Queries that were left short of answers although more items are permitted."""
        if int(ids.min()) >= 0:
            return rows[:0]
        found = (ids >= 0).sum(axis=1)
        left: Ints = rows[(found < ids.shape[1]) & (found < filters.permitted_counts(rows))]
        return left


def _distinct(ids: Ints) -> Ints:
    """Replace an item's second and later mentions in a row by -1; a graph could name one twice."""
    values = np.sort(ids, axis=1)
    if not bool(((values[:, 1:] == values[:, :-1]) & (values[:, 1:] >= 0)).any()):
        return ids
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    repeated = np.zeros(ids.shape, dtype=np.bool_)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    distinct: Ints = np.where(repeated, -1, ids)
    return distinct
