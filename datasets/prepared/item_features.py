"""What a prepared dataset knows of its items besides their ids: tags and vectors, as arrays.

Files, each optional: ``item_tags.npy`` int32 (T,), ``item_tag_offsets.npy`` int64 (V+1,) and
``item_tag_weights.npy`` float32 (T,), ``item_vectors.npy`` float16 (V, p); ``tags.parquet`` names the tags.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FEATURE_ARRAYS", "TAGS", "ItemFeatures", "tags_digest"]

TAGS = "tags.parquet"

FEATURE_ARRAYS: dict[str, type[np.generic]] = {
    "item_tags": np.int32,
    "item_tag_offsets": np.int64,
    "item_tag_weights": np.float32,
    "item_vectors": np.float16,
}
"""Arrays by name."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ItemFeatures:
    """Tags and vectors of V items.

    Attributes:
        tags: (T,) int32 tags of all items, 0..C-1, an item's in rising order.
        tag_offsets: (V+1,) int64: item v bears the tags from entry v to entry v + 1.
        tag_weights: (T,) float32.
        n_tags: C; 0 where no tags were asked for.
        vectors: (V, p) float16, or None.
    """

    tags: NDArray[np.int32]
    tag_offsets: NDArray[np.int64]
    tag_weights: NDArray[np.float32]
    n_tags: int
    vectors: NDArray[np.float16] | None

    @classmethod
    def of(
        cls, folder: Path, arrays: Mapping[str, NDArray[Any]], counts: Mapping[str, Any]
    ) -> "ItemFeatures | None":
        """The features among a prepared dataset's arrays; None where there are none.

        Args:
            folder: of the dataset, for messages.
            arrays: by name.
            counts: of meta.json.

        Raises:
            DataError: an array is missing, or has another shape than the others ask for.
        """
        present = [name for name in FEATURE_ARRAYS if name in arrays]
        if not present:
            return None
        n_items, n_tags = counts.get("items"), counts.get("tags", 0)
        vectors: NDArray[np.float16] | None = arrays.get("item_vectors")
        if vectors is not None and len(vectors) != n_items:
            raise _damaged(folder, "item_vectors", f"holds {len(vectors)} vectors, {n_items} belong there")
        names = [name for name in FEATURE_ARRAYS if name != "item_vectors"]
        if not any(name in arrays for name in names):
            assert isinstance(n_items, int)
            none = np.zeros(0, dtype=np.int32), np.zeros(n_items + 1, dtype=np.int64)
            return cls(
                tags=none[0],
                tag_offsets=none[1],
                tag_weights=np.zeros(0, dtype=np.float32),
                n_tags=0,
                vectors=vectors,
            )
        for name in names:
            if name not in arrays:
                raise _damaged(folder, name, "the file is missing")
        tags, offsets, weights = (arrays[name] for name in names)
        if not isinstance(n_tags, int) or n_tags < 1:
            raise DataError(f"{folder}: does not say how many tags there are; prepare the log again")
        if len(offsets) != (n_items or 0) + 1 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
            raise _damaged(folder, "item_tag_offsets", f"positions do not rise over {n_items} items")
        if len(weights) != len(tags):
            raise _damaged(folder, "item_tag_weights", f"holds {len(weights)} values for {len(tags)} tags")
        if offsets[-1] != len(tags):
            raise _damaged(
                folder, "item_tag_offsets", f"ends at {offsets[-1]} and there are {len(tags)} tags"
            )
        if len(tags) and (tags.min() < 0 or tags.max() >= n_tags):
            raise _damaged(folder, "item_tags", f"a tag lies outside [0, {n_tags})")
        return cls(tags=tags, tag_offsets=offsets, tag_weights=weights, n_tags=n_tags, vectors=vectors)

    @property
    def n_items(self) -> int:
        """V."""
        return len(self.tag_offsets) - 1

    @property
    def vector_width(self) -> int:
        """p; 0 without vectors."""
        return 0 if self.vectors is None else self.vectors.shape[1]


def tags_digest(tags: "pl.DataFrame") -> str:
    """Hex sha256 of the names of tags in order, with their columns."""
    digest = hashlib.sha256()
    for column, name in tags.select("column", "name").iter_rows():
        digest.update(f"{len(column)} {column} {name}\n".encode())
    return digest.hexdigest()


def _damaged(folder: Path, name: str, what: str) -> DataError:
    return DataError(f"{folder / name}.npy: {what}; prepare the log again")
