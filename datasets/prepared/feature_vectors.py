"""What is known of items, as one vector each: items are as alike as their cosine."""

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.item_features import ItemFeatures

__all__ = ["feature_vectors"]

MOST_TAGS = 1_024
"""Tags that have a coordinate each. More are projected at random to as many coordinates (Achlioptas 2003):
cosines are then off by some 1/sqrt(1024), 0.03."""


def feature_vectors(features: ItemFeatures) -> NDArray[np.float32]:
    """(V, D) float32, each of length 1, or 0 for an item of which nothing is known.

    Tags and vectors weigh the same: the cosine of two items with both is the mean of that of their weighted
    tags and that of their vectors.

    Args:
        features: of V items.
    """
    parts = []
    if features.n_tags:
        parts.append(_unit(_of_tags(features)))
    if features.vectors is not None:
        parts.append(_unit(features.vectors.astype(np.float32)))
    return _unit(np.concatenate(parts, axis=1))


def _of_tags(features: ItemFeatures) -> NDArray[np.float32]:
    item = np.repeat(np.arange(features.n_items), np.diff(features.tag_offsets))
    if features.n_tags <= MOST_TAGS:
        found = np.zeros((features.n_items, features.n_tags), dtype=np.float32)
        found[item, features.tags] = features.tag_weights
        return found
    found = np.zeros((features.n_items, MOST_TAGS), dtype=np.float32)
    signs = np.random.default_rng(0).choice([-1, 1], (features.n_tags, MOST_TAGS)).astype(np.float32)
    np.add.at(found, item, features.tag_weights[:, None] * signs[features.tags])
    return found


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    found: NDArray[np.float32] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return found
