"""Approximate kinds: something proposes items, the scan behind it scores them and fills the gaps.

Whatever proposes, the promises are those of an exact index: no filter is broken, scores are true, and a
query gets fewer than k answers only if fewer items are permitted; what may differ is which of the near-best
items are found. Queries that a filter leaves too few items are scanned exactly instead.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.retrieval.counters import Counters
from recsys.retrieval.filters import Filters, Ints
from recsys.retrieval.metric import Floats32, Metric, Proposals, order_exactly
from recsys.retrieval.planner import Engine, Step, plan


class Proposer(Protocol):
    """An approximate index over V items."""

    @property
    def engine(self) -> Engine:
        """What it can do."""

    def propose(self, queries: Floats32, count: int, allowed: Ints | None) -> Ints:
        """Return (b, m) int64 ids of likely best items, -1 where it found no more.

        Args:
            queries: (b, d) float32.
            count: items wanted per query; m may be more or fewer.
            allowed: (n,) ascending ids, the only ones wanted; None for all.

        Raises:
            RetrievalError: it cannot honour a list of allowed items, or cannot be reached.
        """

    def parts(self) -> dict[str, Tensor]:
        """What took long to build."""


class Scan(Protocol):
    """An exact backend that holds the vectors."""

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""

    @property
    def array(self) -> Floats32:
        """(V, d) float32 view of the vectors."""

    @property
    def longest(self) -> float:
        """Greatest Euclidean length of a vector."""

    @property
    def vectors(self) -> Tensor:
        """(V, d) float32."""

    def search(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """As `SearchBackend.search`."""

    def search_rows(self, queries: Floats32, k: int, filters: Filters, chosen: Ints) -> tuple[Floats32, Ints]:
        """Answer the (r,) chosen queries of a batch, whose filters are those of the whole batch."""


class ApproximateBackend:
    """A proposer over a scan.

    Args:
        flat: holds the vectors, scores and scans.
        proposer: finds likely items.
        metric: of the scores.
    """

    exact = False

    def __init__(self, flat: Scan, proposer: Proposer, metric: Metric) -> None:
        self._flat = flat
        self._proposer = proposer
        self._metric = metric
        self.counters = Counters()

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
        scores, ids = self.search_arrays(queries.cpu().numpy(), k, filters)
        return torch.from_numpy(scores), torch.from_numpy(ids)

    def search_arrays(self, asked: Floats32, k: int, filters: Filters) -> tuple[Floats32, Ints]:
        """As `search`, for arrays: for one query a tensor and back takes as long as the search."""
        steps = plan(filters, k, self._proposer.engine)
        if len(steps) == 1 and steps[0].how not in ("gather", "scan"):
            scores, ids = self._ask(steps[0], asked, k, filters)
            self.counters.add(steps[0].how, len(asked))
            left = self._unfinished(steps[0].rows, ids, filters)
            return self._completed(asked, k, filters, scores, ids, left)
        scores = np.empty((len(asked), k), dtype=np.float32)
        ids = np.empty((len(asked), k), dtype=np.int64)
        short = []
        for step in steps:
            rows = step.rows
            self.counters.add(step.how, len(rows))
            if step.how in ("gather", "scan"):
                scores[rows], ids[rows] = self._flat.search_rows(asked, k, filters, rows)
                continue
            scores[rows], ids[rows] = self._ask(step, asked[rows], k, filters)
            short.append(self._unfinished(rows, ids[rows], filters))
        left = np.concatenate(short) if short else np.zeros(0, dtype=np.int64)
        return self._completed(asked, k, filters, scores, ids, left)

    def _completed(
        self, asked: Floats32, k: int, filters: Filters, scores: Floats32, ids: Ints, left: Ints
    ) -> tuple[Floats32, Ints]:
        """Answers, after an exact scan for the queries that were left short."""
        if len(left):
            self.counters.add("completed", len(left))
            scores[left], ids[left] = self._flat.search_rows(asked, k, filters, left)
        return scores, ids

    def _ask(self, step: Step, queries: Floats32, k: int, filters: Filters) -> tuple[Floats32, Ints]:
        allowed = filters.candidates if step.how == "selector" else None
        found = self._proposer.propose(queries, min(filters.n_items, k + step.excluded), allowed)
        scores, ids, refused = order_exactly(
            queries,
            self._flat.array,
            Proposals(found),
            k,
            metric=self._metric,
            longest_item=self._flat.longest,
            filters=filters,
            rows=step.rows,
        )
        if allowed is not None:
            self.counters.add("refused", refused)
        return scores, ids

    def _unfinished(self, rows: Ints, ids: Ints, filters: Filters) -> Ints:
        """Queries that were left short of answers although more items are permitted."""
        if ids[:, -1].min() >= 0:
            return rows[:0]
        found = (ids >= 0).sum(axis=1)
        left: Ints = rows[(found < ids.shape[1]) & (found < filters.permitted_counts(rows))]
        return left
