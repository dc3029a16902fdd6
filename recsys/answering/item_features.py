"""Features of items that were added since training: by them an encoder reads such items in histories."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.encoders.later_items import LaterItems
from recsys.errors import RetrievalError

__all__ = ["AddedFeatures", "features_of", "later_items", "saved_features"]

_EMPTY = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class AddedFeatures:
    """What is known of one added item.

    Attributes:
        tags: (t,) int32, numbers of the run's tags, ascending.
        weights: (t,) float32.
        vector: (p,) float16, zeros for none; None where the run's items have no vectors.
    """

    tags: NDArray[np.int32]
    weights: NDArray[np.float32]
    vector: NDArray[np.float16] | None


def later_items(features: Mapping[int, AddedFeatures], first: int) -> LaterItems | None:
    """Features as an encoder reads them, items without any among them as items of nothing.

    Args:
        features: by index of the item.
        first: index V of the first added item.

    Returns:
        Of the items V, V + 1, ... up to the last that has features; None where there are none.
    """
    if not features:
        return None
    own = [features.get(row) for row in range(first, max(features) + 1)]
    width = max((len(one.vector) for one in own if one is not None and one.vector is not None), default=0)
    vectors = None
    if width:
        vectors = np.zeros((len(own), width), dtype=np.float16)
        for place, one in enumerate(own):
            if one is not None and one.vector is not None:
                vectors[place] = one.vector
    counts = [0 if one is None else len(one.tags) for one in own]
    return LaterItems(
        tags=np.concatenate([_EMPTY[0], *(one.tags for one in own if one is not None)]),
        tag_offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        tag_weights=np.concatenate([_EMPTY[1], *(one.weights for one in own if one is not None)]),
        vectors=vectors,
    )


def saved_features(names: Sequence[Any], features: Sequence[AddedFeatures]) -> dict[str, Tensor]:
    """Tensors that `features_of` takes; nothing for no items.

    Args:
        names: raw ids of n items.
        features: theirs.
    """
    if not names:
        return {}
    rows = later_items(dict(enumerate(features)), 0)
    assert rows is not None
    text = json.dumps(list(names), separators=(",", ":")).encode()
    tensors = {
        "names": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        "tags": torch.from_numpy(rows.tags),
        "tag_offsets": torch.from_numpy(rows.tag_offsets),
        "tag_weights": torch.from_numpy(rows.tag_weights),
    }
    if rows.vectors is not None:
        tensors["vectors"] = torch.from_numpy(rows.vectors)
    return tensors


def features_of(tensors: Mapping[str, Tensor]) -> list[tuple[Any, AddedFeatures]]:
    """Names and features that `saved_features` wrote.

    Raises:
        RetrievalError: the tensors are not such.
    """
    if not tensors:
        return []
    damaged = RetrievalError("the saved changes do not hold their items' features: build the index again")
    try:
        names = json.loads(bytes(tensors["names"].numpy()))
        tags, offsets, weights = (tensors[name].numpy() for name in ("tags", "tag_offsets", "tag_weights"))
    except (KeyError, ValueError):
        raise damaged from None
    vectors = tensors["vectors"].numpy() if "vectors" in tensors else None
    sound = isinstance(names, list) and offsets.ndim == 1 and len(offsets) == len(names) + 1
    sound = sound and tags.dtype == np.int32 and offsets.dtype == np.int64 and weights.dtype == np.float32
    sound = sound and tags.shape == weights.shape == (offsets[-1],) and offsets[0] == 0
    if not sound or bool((np.diff(offsets) < 0).any()):
        raise damaged
    if vectors is not None and (vectors.dtype != np.float16 or vectors.shape[:1] != (len(names),)):
        raise damaged
    return [
        (
            name,
            AddedFeatures(tags[first:last], weights[first:last], None if vectors is None else vectors[place]),
        )
        for place, (name, first, last) in enumerate(zip(names, offsets, offsets[1:], strict=False))
    ]
