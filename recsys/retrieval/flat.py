"""The `flat` kind: FAISS's IndexFlatIP or IndexFlatL2, exact, with filters that it cannot get wrong.

- Exclusions: k + |excluded| items are fetched and the excluded dropped. That is exact for a flat index and
  cheaper than an IDSelector, which keeps FAISS from using BLAS.
- Allow-lists: the allowed vectors are gathered and scanned as an index of their own.
- Every id is checked against the filters here, whatever FAISS returned.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.retrieval.faiss_library import load_faiss, lower_blas_threshold
from recsys.retrieval.filters import Filters, Ints
from recsys.retrieval.metric import Floats32, Metric, Proposals, longest, order_exactly, rounding_margins

# Items proposed past k, so that rounding seldom leaves the k-th place in doubt.
_SLACK = 8


class FlatBackend:
    """A FAISS flat index on the CPU."""

    def __init__(self, vectors: Tensor, metric: Metric) -> None:
        self._faiss = load_faiss()
        self._metric = metric
        array = vectors.cpu().numpy()
        lower_blas_threshold(self._faiss, array.shape[1])
        self._index = self._make_index(array)
        # A view of the index's own storage, alive as long as the index: the vectors are held once.
        stored = self._faiss.rev_swig_ptr(self._index.get_xb(), array.size)
        self._array: Floats32 = stored.reshape(array.shape)
        self._longest = longest(array)

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""
        return self._array.shape[0], self._array.shape[1]

    @property
    def vectors(self) -> Tensor:
        """(V, d) float32 copy of the stored vectors."""
        return torch.from_numpy(self._array.copy())

    def search(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """Return the k best permitted items of each query; see `SearchBackend`."""
        asked: Floats32 = queries.cpu().numpy()
        margins = rounding_margins(asked, self._longest, self._metric)
        index, labels = self._index, filters.candidates
        if labels is not None:
            index = self._make_index(self._array[labels])
        scores = np.empty((len(asked), k), dtype=np.float32)
        ids = np.empty((len(asked), k), dtype=np.int64)
        for rows, excluded in _rows_by_exclusions(filters):
            proposals = self._propose(index, labels, asked[rows], k, excluded, filters, rows)
            scores[rows], ids[rows] = order_exactly(
                asked[rows],
                self._array,
                proposals,
                k,
                metric=self._metric,
                margins=margins[rows],
                filters=filters,
                rows=rows,
            )
        return torch.from_numpy(scores), torch.from_numpy(ids)

    def _make_index(self, vectors: Floats32) -> Any:
        flat = self._faiss.IndexFlatL2 if self._metric == "l2" else self._faiss.IndexFlatIP
        index = flat(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors))
        return index

    def _propose(
        self,
        index: Any,
        labels: Ints | None,
        queries: Floats32,
        k: int,
        excluded: int,
        filters: Filters,
        rows: Ints,
    ) -> Proposals:
        """Fetch past the exclusions and keep the first k + slack permitted items of each row."""
        fetched = min(index.ntotal, k + excluded + _SLACK)
        found, places = index.search(np.ascontiguousarray(queries), fetched)
        scores = found.astype(np.float64) * (-1 if self._metric == "l2" else 1)
        ids = places if labels is None else np.where(places >= 0, labels[places], -1)
        permitted = filters.permits(ids, rows)
        wanted = min(fetched, k + _SLACK)
        # Stable: permitted items keep FAISS's order and come before the others.
        order = np.argsort(~permitted, axis=1, kind="stable")
        first = order[:, :wanted]
        kept = np.take_along_axis(permitted, first, axis=1)
        # Past the proposals come permitted items that were fetched, or else items below the last fetched.
        more = permitted.sum(axis=1) > wanted
        floor = scores[:, -1] if fetched < index.ntotal else np.full(len(queries), -np.inf)
        last_kept = np.take_along_axis(scores, first, axis=1)[:, -1]
        return Proposals(
            ids=np.where(kept, np.take_along_axis(ids, first, axis=1), -1),
            floor=np.where(more, last_kept, floor),
        )


def _rows_by_exclusions(filters: Filters) -> list[tuple[Ints, int]]:
    """Group rows by the power of two of their exclusions, each group with its greatest number.

    One user with thousands of seen items must not make everybody's fetch as deep.
    """
    counts = np.diff(filters.offsets)
    level = np.ceil(np.log2(counts + 1)).astype(np.int64)
    groups = (np.flatnonzero(level == value) for value in np.unique(level))
    return [(rows, int(counts[rows].max())) for rows in groups]


def build(vectors: Tensor, metric: Metric) -> FlatBackend:
    """Build the backend over a copy of the vectors."""
    return FlatBackend(vectors, metric)
