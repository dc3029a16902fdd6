"""What whole recommendation lists look like: catalog coverage and novelty, without looking at targets.

- coverage@k = distinct items in the users' first k places / catalog size.
- novelty@k = mean over recommended places of -log2(share of the item in training events): Zhou et al. 2010,
  "self-information" in bits. An item without a training event counts as if it had one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.evaluation.metrics import check_ks


class ListMetrics:
    """Coverage and novelty, added up batch by batch.

    Args:
        item_counts: (V,) int64 training events of each item.
        ks: cut-offs.
    """

    def __init__(self, item_counts: NDArray[np.int64], ks: Sequence[int]) -> None:
        self.ks = check_ks(ks)
        counts = np.maximum(item_counts, 1).astype(np.float64)
        self._bits = -np.log2(counts / max(int(item_counts.sum()), 1))
        # The smallest place (from 1) at which each item was recommended tells its coverage at every k.
        self._best_place = np.full(len(item_counts), np.iinfo(np.int32).max, dtype=np.int32)
        self._bits_sum = np.zeros(max(self.ks))
        self._places = np.zeros(max(self.ks), dtype=np.int64)

    def update(self, ids: NDArray[np.int64]) -> None:
        """Add lists, best first.

        Args:
            ids: (R, K) int64 with K >= max(ks); -1 fills the end of a short list.

        Raises:
            ArgumentError: the lists are shorter than max(ks) or an id is out of range.
        """
        if ids.ndim != 2 or ids.shape[1] < max(self.ks):
            raise ArgumentError(f"ids has shape {ids.shape}: give lists of at least {max(self.ks)} places")
        if ids.size and (ids.min() < -1 or ids.max() >= len(self._bits)):
            raise ArgumentError(f"ids must lie in [-1, {len(self._bits)}): one lies outside")
        for place in range(max(self.ks)):
            column = ids[:, place]
            column = column[column >= 0]
            self._bits_sum[place] += self._bits[column].sum()
            self._places[place] += len(column)
            self._best_place[column] = np.minimum(self._best_place[column], place + 1)

    def result(self) -> dict[str, float]:
        """Return coverage@k and novelty@k for each k; 0.0 where nothing was recommended."""
        metrics = {
            f"coverage@{k}": float(np.count_nonzero(self._best_place <= k)) / max(len(self._bits), 1)
            for k in self.ks
        }
        for k in self.ks:
            places = int(self._places[:k].sum())
            metrics[f"novelty@{k}"] = float(self._bits_sum[:k].sum()) / places if places else 0.0
        return metrics


def list_metrics(
    ids: NDArray[np.int64], item_counts: NDArray[np.int64], ks: Sequence[int]
) -> dict[str, float]:
    """Coverage and novelty of lists that are all at hand; see the module's formulas.

    Args:
        ids: (R, K) int64, best first, -1 at the end of a short list, K >= max(ks).
        item_counts: (V,) int64 training events of each item.
        ks: cut-offs.
    """
    totals = ListMetrics(item_counts, ks)
    totals.update(ids)
    return totals.result()
