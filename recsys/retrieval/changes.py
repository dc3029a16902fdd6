"""What came and went since an index was built, as it lies beside the index on disk.

The index stays as it was written; additions are a short list of vectors, removals the numbers of the base's
rows. Replacing both takes one small file and the manifest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import RetrievalError
from recsys.retrieval.filters import Ints
from recsys.retrieval.metric import Floats32

_EXTRA = "extra."


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Difference between a catalog and the index of V rows that it began with.

    Attributes:
        gone: (g,) int64 ascending rows of the index that are no longer answered, as removed or replaced.
        ids: (m,) int64 ascending item ids of additions; those below V take a gone row's place.
        vectors: (m, d) float32 theirs, as searched.
        labels: what the maker calls the ids from V on, one plain JSON value each, in order.
        extra: tensors that the maker keeps with them, by name.
    """

    gone: Ints
    ids: Ints
    vectors: Floats32
    labels: tuple[Any, ...] = ()
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.gone) + len(self.ids)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return len(self) == 0 and not self.extra

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` takes."""
        text = json.dumps(list(self.labels), separators=(",", ":")).encode()
        return {
            "gone": torch.from_numpy(self.gone.astype(np.int64)),
            "ids": torch.from_numpy(self.ids.astype(np.int64)),
            "vectors": torch.from_numpy(np.ascontiguousarray(self.vectors, dtype=np.float32)),
            "labels": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            **{f"{_EXTRA}{name}": tensor for name, tensor in self.extra.items()},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], n_items: int, width: int) -> "Changes":
        """The changes that `tensors` describes.

        Args:
            tensors: by name.
            n_items: rows V of the index that they belong to.
            width: length d of its vectors.

        Raises:
            RetrievalError: they do not fit an index of that shape.
        """
        try:
            gone, ids, vectors = (tensors[name].numpy() for name in ("gone", "ids", "vectors"))
            labels = json.loads(bytes(tensors["labels"].numpy()))
        except (KeyError, ValueError):
            raise _misfit() from None
        whole = gone.dtype == ids.dtype == np.int64 and gone.ndim == ids.ndim == 1
        if not whole or vectors.dtype != np.float32 or vectors.shape != (len(ids), width):
            raise _misfit()
        sound = bool((np.diff(gone) > 0).all() and (np.diff(ids) > 0).all() and np.isfinite(vectors).all())
        sound = sound and (len(gone) == 0 or 0 <= gone[0] <= gone[-1] < n_items)
        # An item has one vector: where an addition stands for a row of the index, the row is gone.
        sound = sound and bool(np.isin(ids[ids < n_items], gone).all()) and (len(ids) == 0 or ids[0] >= 0)
        sound = sound and isinstance(labels, list)
        if not sound or len(ids) + n_items == len(gone):
            raise _misfit()
        extra = {name.removeprefix(_EXTRA): own for name, own in tensors.items() if name.startswith(_EXTRA)}
        return cls(gone, ids, vectors, tuple(labels), extra)


def _misfit() -> RetrievalError:
    return RetrievalError("the saved changes do not fit their index: build the index again")
