"""Each item's nearest items: by what stands beside it in training sequences, or by what is known of it."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.datasets.prepared.feature_vectors import feature_vectors
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import ConfigError
from recsys.kernels.ranking import top_k
from recsys.training.neighbours import WINDOW, pairs_beside

__all__ = ["NEIGHBOURS", "NeighboursBy", "item_neighbours"]

NeighboursBy = Literal["beside", "features"]

NEIGHBOURS = 10
"""Nearest items that are kept of each item."""
_SHRINK = 20.0
"""Added to the denominator of a cosine of counts, against chance among rare items."""
_AT_ONCE = 4_096


def item_neighbours(store: SequenceStore, by: NeighboursBy, k: int = NEIGHBOURS) -> NDArray[np.int32]:
    """The nearest trained items of each item.

    "beside": by n(i, j) / (sqrt(n(i) n(j)) + 20), n(i, j) how often they stand up to five places apart in
    training sequences and n(i) how often i stands there. "features": by the cosine of tags and vectors.

    Args:
        store: prepared data.
        by: what makes items near.
        k: how many.

    Returns:
        (V, k) int32, nearest first; -1 where an item has fewer.

    Raises:
        ConfigError: the log was prepared without features.
    """
    if by == "features":
        return _by_features(store, k)
    counts = store.item_counts()
    item, other, times = pairs_beside(store, np.ones(store.n_items, dtype=np.bool_), WINDOW)
    near = times / (np.sqrt(counts[item].astype(np.float64) * counts[other]) + _SHRINK)
    order = np.lexsort((other, -near, item))
    item, other = item[order], other[order]
    place = np.arange(len(item)) - np.searchsorted(item, item)
    found = np.full((store.n_items, k), -1, dtype=np.int32)
    kept = place < k
    found[item[kept], place[kept]] = other[kept]
    return found


def _by_features(store: SequenceStore, k: int) -> NDArray[np.int32]:
    if store.item_features is None:
        raise ConfigError(
            "training.substitute_by = 'features' needs features of items: prepare the log with item_tags=, "
            "item_words= or item_vectors=, or take 'beside'"
        )
    vectors = torch.from_numpy(feature_vectors(store.item_features))
    trained = torch.from_numpy(np.flatnonzero(store.item_counts() > 0))
    found = np.full((store.n_items, k), -1, dtype=np.int32)
    for first in range(0, store.n_items, _AT_ONCE):
        asked = vectors[first : first + _AT_ONCE]
        own = torch.arange(first, first + len(asked)), torch.arange(len(asked) + 1)
        near = top_k(asked, vectors, min(k, store.n_items), own, candidates=trained)
        alike = np.where(near.scores.numpy() > 0, near.ids.numpy(), -1)
        found[first : first + len(asked), : alike.shape[1]] = alike
    return found
