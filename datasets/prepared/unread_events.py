"""Training events that are predicted and not read: those that a preparation took for noise.

Files, of K events: ``unread.npy`` int32 (K,) the item of each, ``unread_before.npy`` int64 (K,) the event
before which each stood, rising, and ``unread_weights.npy`` float32 (K,) how much each counts where events
have weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError

__all__ = ["UNREAD_ARRAYS", "UnreadEvents"]

UNREAD_ARRAYS: dict[str, type[np.generic]] = {
    "unread": np.int32,
    "unread_before": np.int64,
    "unread_weights": np.float32,
}
"""Arrays by name."""


@dataclass(frozen=True, slots=True, eq=False)
class UnreadEvents:
    """K events that are predicted and not read.

    Attributes:
        items: (K,) int32.
        before: (K,) int64 position of the event before which each stood, rising.
        weights: (K,) float32 how much each counts; None where all count alike.
    """

    items: NDArray[np.int32]
    before: NDArray[np.int64]
    weights: NDArray[np.float32] | None

    @classmethod
    def of(cls, folder: Path, arrays: Mapping[str, NDArray[Any]]) -> "UnreadEvents | None":
        """Those of a prepared dataset; None where it has none.

        Raises:
            DataError: a file is missing.
        """
        if "unread" not in arrays:
            return None
        if "unread_before" not in arrays:
            raise DataError(f"{folder / 'unread_before.npy'}: the file is missing; prepare the log again")
        return cls(arrays["unread"], arrays["unread_before"], arrays.get("unread_weights"))

    def renumbered(self, numbers: NDArray[np.int32]) -> "UnreadEvents":
        """The same with items under other numbers: (V,) int32, that of each item."""
        return replace(self, items=numbers[self.items])

    def check(self, folder: Path, n_items: int, n_events: int) -> None:
        """Refuse events that do not fit the items or the other events.

        Raises:
            DataError: it names the file.
        """
        items, before, weights = self.items, self.before, self.weights
        again = "; prepare the log again"
        if len(items) and (items.min() < 0 or items.max() >= n_items):
            raise DataError(f"{folder / 'unread.npy'}: an item lies outside [0, {n_items}){again}")
        inside = not len(before) or (before[0] >= 0 and before[-1] < n_events)
        if len(before) != len(items) or not inside or np.any(np.diff(before) < 0):
            raise DataError(
                f"{folder / 'unread_before.npy'}: no {len(items)} places that rise within [0, {n_events})"
                f"{again}"
            )
        if weights is not None and (
            len(weights) != len(items) or not bool((np.isfinite(weights) & (weights >= 0)).all())
        ):
            raise DataError(f"{folder / 'unread_weights.npy'}: no {len(items)} numbers of 0 or more{again}")
