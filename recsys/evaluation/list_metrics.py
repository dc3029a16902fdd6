"""What whole recommendation lists look like: catalog coverage and novelty, without looking at targets.

- coverage@k = distinct items in the users' first k places / catalog size.
- novelty@k = mean over recommended places of -log2(share of the item in training events): Zhou et al. 2010,
  "self-information" in bits. An item without a training event counts as if it had one.
"""

from collections.abc import Sequence
from itertools import pairwise

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
        self._bits = -np.log2(np.maximum(item_counts, 1) / max(int(item_counts.sum()), 1))
        # How often each item was recommended up to each cut-off and past the one before it: whole numbers,
        # so that the order of batches changes nothing.
        self._times = np.zeros((len(self.ks), len(item_counts)), dtype=np.int64)

    def update(self, ids: NDArray[np.int64]) -> None:
        """Add lists, best first.

        Args:
            ids: (R, K) int64 with K >= max(ks), or all V items; -1 fills the end of a short list.

        Raises:
            ArgumentError: the lists are shorter than max(ks) or an id is out of range.
        """
        places = min(max(self.ks), len(self._bits))
        if ids.ndim != 2 or ids.shape[1] < places:
            raise ArgumentError(f"ids has shape {ids.shape}: give lists of at least {places} places")
        if ids.size and (ids.min() < -1 or ids.max() >= len(self._bits)):
            raise ArgumentError(f"ids must lie in [-1, {len(self._bits)}): one lies outside")
        for place, (low, high) in enumerate(pairwise((0, *self.ks))):
            column = ids[:, low:high].ravel()
            self._times[place] += np.bincount(column[column >= 0], minlength=len(self._bits))

    def result(self) -> dict[str, float]:
        """Return coverage@k and novelty@k for each k; 0.0 where nothing was recommended."""
        times = np.cumsum(self._times, axis=0)
        covered = np.count_nonzero(times, axis=1) / max(len(self._bits), 1)
        bits = times @ self._bits / np.maximum(times.sum(axis=1), 1)
        metrics = {f"coverage@{k}": float(share) for k, share in zip(self.ks, covered, strict=True)}
        return metrics | {f"novelty@{k}": float(mean) for k, mean in zip(self.ks, bits, strict=True)}


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
