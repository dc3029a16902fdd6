"""What whole recommendation lists look like: coverage, novelty and exposure, without looking at targets.

- coverage@k = distinct items in the users' first k places / catalog size.
- novelty@k = mean over recommended places of -log2(share of the item in training events): Zhou et al. 2010,
  "self-information" in bits. An item without a training event counts as if it had one.
- gini@k = sum over items of (2 i - V - 1) n(i) / (V sum n), n(1) <= ... <= n(V) how often each item of the
  catalog was recommended in the first k places: 0 where all are alike, 1 - 1/V where one item has it all.

Where the log was prepared with features of items, `recsys.evaluation.list_features` adds what they tell.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.item_features import ItemFeatures
from recsys.errors import ArgumentError
from recsys.evaluation.list_features import FeatureLists
from recsys.evaluation.metrics import check_ks
from recsys.evaluation.spans import Ints


class ListMetrics:
    """Figures of lists, added up batch by batch.

    Args:
        item_counts: (V,) int64 training events of each item.
        ks: cut-offs.
        features: what else is known of the items; None leaves out what is told by it.
    """

    def __init__(
        self, item_counts: NDArray[np.int64], ks: Sequence[int], features: ItemFeatures | None = None
    ) -> None:
        self.ks = check_ks(ks)
        self._features = None if features is None else FeatureLists(features, self.ks)
        self._bits = -np.log2(np.maximum(item_counts, 1) / max(int(item_counts.sum()), 1))
        # How often each item was recommended up to each cut-off and past the one before it: whole numbers,
        # so that the order of batches changes nothing.
        self._times = np.zeros((len(self.ks), len(item_counts)), dtype=np.int64)

    def update(self, ids: NDArray[np.int64], history: tuple[Ints, Ints] | None = None) -> None:
        """Add lists, best first.

        Args:
            ids: (R, K) int64 with K >= max(ks), or all V items; -1 fills the end of a short list.
            history: (E,) int64 items of the events read for each list, end to end, and their (R+1,) offsets;
                wanted where features are known.

        Raises:
            ArgumentError: the lists are shorter than max(ks), an id is out of range, or no history is given.
        """
        places = min(max(self.ks), len(self._bits))
        if ids.ndim != 2 or ids.shape[1] < places:
            raise ArgumentError(f"ids has shape {ids.shape}: give lists of at least {places} places")
        if ids.size and (ids.min() < -1 or ids.max() >= len(self._bits)):
            raise ArgumentError(f"ids must lie in [-1, {len(self._bits)}): one lies outside")
        for place, (low, high) in enumerate(pairwise((0, *self.ks))):
            column = ids[:, low:high].ravel()
            self._times[place] += np.bincount(column[column >= 0], minlength=len(self._bits))
        if self._features is not None:
            if history is None:
                raise ArgumentError("history is missing: with features of items, give what each list answers")
            self._features.update(ids, history)

    def result(self) -> dict[str, float]:
        """Return each figure for each k by name, as coverage@10; 0.0 where nothing was recommended."""
        times = np.cumsum(self._times, axis=0)
        covered = np.count_nonzero(times, axis=1) / max(len(self._bits), 1)
        bits = times @ self._bits / np.maximum(times.sum(axis=1), 1)
        figures = {"coverage": covered, "novelty": bits, "gini": gini(times)}
        metrics = {
            f"{name}@{k}": float(value)
            for name, values in figures.items()
            for k, value in zip(self.ks, values, strict=True)
        }
        return metrics if self._features is None else metrics | self._features.result()


def gini(times: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) Gini coefficients of (n, V) counts; 0.0 for a row of zeros."""
    n_items = times.shape[1]
    weights = 2.0 * np.arange(1, n_items + 1) - n_items - 1
    found: NDArray[np.float64] = np.sort(times, axis=1) @ weights
    found /= np.maximum(n_items * times.sum(axis=1), 1)
    return found


def list_metrics(
    ids: NDArray[np.int64],
    item_counts: NDArray[np.int64],
    ks: Sequence[int],
    features: ItemFeatures | None = None,
    history: tuple[Ints, Ints] | None = None,
) -> dict[str, float]:
    """The figures of lists that are all at hand; arguments as of `ListMetrics` and its ``update``."""
    totals = ListMetrics(item_counts, ks, features)
    totals.update(ids, history)
    return totals.result()
