"""What an encoder's items are made of, from a prepared dataset."""

import hashlib

from recsys.datasets.prepared.item_features import FEATURE_ARRAYS
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.item_tower import ItemInputs

__all__ = ["item_inputs"]


def item_inputs(store: SequenceStore) -> ItemInputs | None:
    """The features of a log's items as an encoder reads them; None where it has none."""
    features = store.item_features
    if features is None:
        return None
    trained = store.item_counts() > 0
    digest = hashlib.sha256(trained.tobytes())
    for name in FEATURE_ARRAYS:
        digest.update(store.meta["files"].get(f"{name}.npy", {}).get("sha256", "").encode())
    return ItemInputs(
        trained=trained,
        tags=features.tags,
        tag_offsets=features.tag_offsets,
        tag_weights=features.tag_weights,
        n_tags=features.n_tags,
        vectors=features.vectors,
        digest=digest.hexdigest(),
    )
