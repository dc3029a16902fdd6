"""Features of items that came after an encoder was trained."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError

__all__ = ["LaterItems"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LaterItems:
    """What a tower reads of m items that came after training, as `ItemInputs` holds it of the catalog.

    Attributes:
        tags: (T,) int32 tags of all items.
        tag_offsets: (m + 1,) int64: item i bears the tags from entry i to entry i + 1.
        tag_weights: (T,) float32.
        vectors: (m, p) float16, zeros for an item without one; or None.
    """

    tags: NDArray[np.int32]
    tag_offsets: NDArray[np.int64]
    tag_weights: NDArray[np.float32]
    vectors: NDArray[np.float16] | None

    def __len__(self) -> int:
        return len(self.tag_offsets) - 1

    def check(self, *, n_tags: int, width: int) -> None:
        """Refuse what a tower with C tags and vectors of width p cannot read.

        Args:
            n_tags: C; 0 for none.
            width: p; 0 for none.

        Raises:
            ArgumentError: a tag outside [0, C), or vectors of another width.
        """
        if len(self.tags) and not 0 <= int(self.tags.min()) <= int(self.tags.max()) < n_tags:
            raise ArgumentError(f"a later item bears a tag outside [0, {n_tags}), the tags of the catalog")
        given = 0 if self.vectors is None else self.vectors.shape[1]
        if given not in (0, width):
            raise ArgumentError(f"vectors of later items have {given} numbers, those of the catalog {width}")
