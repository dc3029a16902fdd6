"""Item-to-item nearest neighbours by cosine of co-occurrence."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.baselines.pairs import TrainingPairs
from recsys.baselines.registry import Baseline, HistoryBaseline, register_baseline
from recsys.config import require
from recsys.evaluation.scored import Scores
from recsys.evaluation.spans import Ints, expand_spans
from recsys.evaluation.targets import PreparedLog


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemKnnConfig:
    """Cosine item-kNN (Sarwar et al. 2001): an item scores the sum of its similarities to history items.

    The similarity of items i and j is users(i, j) / (sqrt(users(i) users(j)) + shrink).
    """

    neighbors: int = 100
    """Most similar items that each item keeps; 1 or more."""
    shrink: float = 0.0
    """Added to the denominator, against chance among rare items; 0 or more."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.neighbors >= 1, "floor.neighbors", self.neighbors, "1 or more")
        require(self.shrink >= 0, "floor.shrink", self.shrink, "0 or more")


@register_baseline("item-knn", ItemKnnConfig)
def fit_item_knn(store: PreparedLog, config: ItemKnnConfig) -> Baseline:
    """Similarities of the training events' items."""
    return HistoryBaseline(store, _knn_scores(store, config))


def _knn_scores(store: PreparedLog, config: ItemKnnConfig) -> Callable[[Ints, Ints], Scores]:
    n_items = store.n_items
    pairs = TrainingPairs(store)
    norms = np.sqrt(pairs.item_users)
    found: list[tuple[Ints, Ints, NDArray[np.float64]]] = []
    kept = min(config.neighbors, n_items)
    for first, counts in pairs.together():
        places = np.arange(first, first + len(counts))
        # An item that no user took has similarity 0 to all: 0 / max(0 + shrink, 1).
        scale = norms[places, None] * norms + config.shrink
        similar = counts / np.where(scale > 0, scale, 1.0)
        similar[np.arange(len(places)), places] = 0.0
        # Stable, so that among equal similarities the items of lower index are kept, on every machine.
        nearest_ = np.argsort(-similar, axis=1, kind="stable")[:, :kept]
        values = np.take_along_axis(similar, nearest_, axis=1)
        positive = values > 0
        found.append((np.repeat(places, positive.sum(axis=1)), nearest_[positive], values[positive]))
    item, neighbor, value = (np.concatenate(part) for part in zip(*found, strict=True))
    # By neighbor: what an item of the history adds, and to which items.
    order = np.argsort(neighbor, kind="stable")
    item, value = item[order], value[order]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(neighbor, minlength=n_items))))

    def scores(history: Ints, bounds: Ints) -> Scores:
        n_rows = len(bounds) - 1
        places, ends = expand_spans(offsets[history], offsets[history + 1])
        per_event = np.diff(ends)
        owner = np.repeat(np.repeat(np.arange(n_rows), np.diff(bounds)), per_event)
        cells = owner * n_items + item[places]
        summed = np.bincount(cells, value[places], minlength=n_rows * n_items)
        return summed.reshape(n_rows, n_items).astype(np.float64, copy=False)

    return scores
