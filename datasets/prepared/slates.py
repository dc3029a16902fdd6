"""What was shown when an event happened, and slates of which nothing was taken.

Files, each optional, over N events and items 0..V-1: ``shown.npy`` int32, the items of all slates one after
the other, and ``shown_offsets.npy`` int64 (N+1,), where each event's begin. Slates of which nothing was
taken are no events: ``passed.npy`` int32 and ``passed_offsets.npy`` int64 (K+1,) hold them likewise,
``passed_before.npy`` int64 (K,) the event before which each was shown, rising, and ``passed_weights.npy``
float32 (K,) how much each counts where events have weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError

__all__ = ["SLATE_ARRAYS", "Slates"]

SLATE_ARRAYS: dict[str, type[np.generic]] = {
    "shown": np.int32,
    "shown_offsets": np.int64,
    "passed": np.int32,
    "passed_offsets": np.int64,
    "passed_before": np.int64,
    "passed_weights": np.float32,
}
"""Arrays by name."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Slates:
    """What was shown at N events, and K slates of which nothing was taken.

    Attributes:
        shown: (S,) int32 items of the events' slates, each item once in a slate.
        shown_offsets: (N+1,) int64 where each event's begin; an event without a slate has none.
        passed: (P,) int32 items of the slates of which nothing was taken.
        passed_offsets: (K+1,) int64.
        passed_before: (K,) int64 position of the event before which each was shown, rising.
        passed_weights: (K,) float32 how much each counts; None where all count alike.
    """

    shown: NDArray[np.int32]
    shown_offsets: NDArray[np.int64]
    passed: NDArray[np.int32]
    passed_offsets: NDArray[np.int64]
    passed_before: NDArray[np.int64]
    passed_weights: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, folder: Path, arrays: Mapping[str, NDArray[Any]]) -> "Slates | None":
        """The slates of a prepared dataset; None where it keeps none.

        Raises:
            DataError: some of the files are missing.
        """
        if "shown" not in arrays:
            return None
        fields = {name: arrays.get(name) for name in SLATE_ARRAYS}
        for name, array in fields.items():
            if array is None and name != "passed_weights":
                raise DataError(f"{folder / name}.npy: the file is missing; prepare the log again")
        return cls(**fields)  # type: ignore[arg-type]

    @property
    def n_passed(self) -> int:
        """K, slates of which nothing was taken."""
        return len(self.passed_before)

    def renumbered(self, numbers: NDArray[np.int32]) -> "Slates":
        """The same with items under other numbers: (V,) int32, that of each item."""
        return replace(self, shown=numbers[self.shown], passed=numbers[self.passed])

    def check(self, folder: Path, n_items: int, n_events: int) -> None:
        """Refuse slates that do not fit the items or the events.

        Raises:
            DataError: it names the file.
        """
        for name, offsets, items, count in (
            ("shown", self.shown_offsets, self.shown, n_events),
            ("passed", self.passed_offsets, self.passed, self.n_passed),
        ):
            whole = len(offsets) == count + 1 and offsets[0] == 0 and offsets[-1] == len(items)
            if not whole or np.any(np.diff(offsets) < 0):
                raise _damaged(folder, f"{name}_offsets", f"does not rise from 0 to {len(items)}")
            if len(items) and (items.min() < 0 or items.max() >= n_items):
                raise _damaged(folder, name, f"an item lies outside [0, {n_items})")
        before = self.passed_before
        inside = not len(before) or (before[0] >= 0 and before[-1] < n_events)
        if not inside or np.any(np.diff(before) < 0):
            raise _damaged(folder, "passed_before", f"does not rise within [0, {n_events})")
        weights = self.passed_weights
        if weights is not None and (
            len(weights) != self.n_passed or not bool((np.isfinite(weights) & (weights >= 0)).all())
        ):
            raise _damaged(folder, "passed_weights", "a weight is no number of 0 or more, or one is missing")


def _damaged(folder: Path, name: str, what: str) -> DataError:
    return DataError(f"{folder / name}.npy: {what}; prepare the log again")
