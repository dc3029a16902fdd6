"""The `exact` kind: the ranking kernel over the whole catalog, the reference for every other kind."""

import numpy as np
import torch
from torch import Tensor

from recsys.kernels.rescoring import SLACK, overflows
from recsys.retrieval.backends import Parts
from recsys.retrieval.counters import Counters
from recsys.retrieval.filters import Filters
from recsys.retrieval.metric import Metric, Proposals, longest, order_exactly, too_long
from recsys.retrieval.options import IndexOptions


class ExactBackend:
    """Inner products by `recsys.kernels.ranking.top_k`; runs wherever the vectors are.

    For l2 the kernel ranks 2 q.v - |v|^2, whose order is that of -|q - v|^2, and the best are scored again
    without the cancellation.
    """

    exact = True

    def __init__(self, vectors: Tensor, metric: Metric) -> None:
        self.vectors = vectors
        self._metric = metric
        self._longest = 0.0
        self.counters = Counters()
        self._augmented = vectors
        if metric == "l2":
            rows = vectors.cpu().numpy()
            self._longest = longest(rows)
            squares = np.einsum("vd,vd->v", rows, rows, dtype=np.float64).astype(np.float32)
            self._augmented = torch.cat([vectors, -torch.from_numpy(squares).to(vectors)[:, None]], dim=1)

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""
        return self.vectors.shape[0], self.vectors.shape[1]

    def search_exactly(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """As `search`."""
        return self.search(queries, k, filters)

    def parts(self) -> dict[str, Tensor]:
        """Nothing beside the vectors."""
        return {}

    def search(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """Return the k best permitted items of each query; see `SearchBackend`."""
        from recsys.kernels.ranking import top_k

        device = self.vectors.device
        queries = queries.to(device)
        self.counters.add("exact", len(queries))
        exclude = None
        if filters.excludes:
            exclude = torch.from_numpy(filters.ids).to(device), torch.from_numpy(filters.offsets).to(device)
        candidates = None if filters.candidates is None else torch.from_numpy(filters.candidates).to(device)
        if self._metric != "l2":
            found = top_k(queries, self.vectors, k, exclude, candidates=candidates)
            return found.scores, found.ids

        plain = queries.cpu().numpy()
        if overflows(plain.reshape(-1), plain.shape[1], self._longest, True):
            raise too_long()
        # Among many answers the distances lie close together.
        slack = SLACK + k // 32
        asked = min(k + slack, len(self.vectors))
        doubled = torch.cat([2 * queries, torch.ones_like(queries[:, :1])], dim=1)
        near = top_k(doubled, self._augmented, asked, exclude, candidates=candidates)
        scores, ids, _ = order_exactly(
            plain,
            self.vectors.cpu().numpy(),
            Proposals(
                near.ids.cpu().numpy(),
                near.scores.cpu().numpy(),
                asked == len(self.vectors),
                shifts=np.einsum("bd,bd->b", plain, plain, dtype=np.float64),
            ),
            k,
            metric=self._metric,
            longest_item=self._longest,
            filters=filters,
            rows=np.arange(len(plain), dtype=np.int64),
            slack=slack,
        )
        return torch.from_numpy(scores).to(device), torch.from_numpy(ids).to(device)


def build(vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None) -> ExactBackend:
    """Build the backend over a copy of the vectors."""
    return ExactBackend(vectors.clone(), metric)
