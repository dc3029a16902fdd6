"""Which items belong to which categories, for filters by category; an item may belong to several or none."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.retrieval.filters import Ints


class Categories:
    """The items of each of C categories.

    Args:
        items: (E,) int64 items, category after category, ascending within each.
        offsets: (C+1,) int64; category c has items[offsets[c]:offsets[c+1]].
        n_items: catalog size V.

    Raises:
        ArgumentError: the arrays do not fit each other or the catalog.
    """

    def __init__(self, items: NDArray[Any], offsets: NDArray[Any], n_items: int) -> None:
        self._items = np.asarray(items, dtype=np.int64)
        self._offsets = np.asarray(offsets, dtype=np.int64)
        self.n_items = n_items
        fits = len(self._offsets) >= 1 and self._offsets[0] == 0 and self._offsets[-1] == len(self._items)
        if not fits or np.any(np.diff(self._offsets) < 0):
            raise ArgumentError("category offsets must rise from 0 to the number of category items")
        if len(self._items) and (self._items.min() < 0 or self._items.max() >= n_items):
            raise ArgumentError(f"categories hold an item outside [0, {n_items})")

    @classmethod
    def of_items(cls, categories: Iterable[Iterable[int]], n_categories: int) -> "Categories":
        """From the category numbers of each item, item after item.

        Raises:
            ArgumentError: a number outside [0, n_categories).
        """
        listed = [np.unique(np.asarray(list(numbers), dtype=np.int64)) for numbers in categories]
        owner = np.repeat(np.arange(len(listed)), [len(numbers) for numbers in listed])
        numbers = np.concatenate(listed) if listed else np.zeros(0, dtype=np.int64)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= n_categories):
            raise ArgumentError(f"an item's category lies outside [0, {n_categories})")
        order = np.lexsort((owner, numbers))
        offsets = np.searchsorted(numbers[order], np.arange(n_categories + 1))
        return cls(owner[order], offsets, len(listed))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def items(self, wanted: Any) -> Ints:
        """(n,) int64 ascending items that belong to any of the wanted categories.

        Raises:
            ArgumentError: a category that is not in [0, C).
        """
        if type(wanted) is int and 0 <= wanted < len(self):
            return self._items[self._offsets[wanted] : self._offsets[wanted + 1]]
        numbers = np.atleast_1d(np.asarray(wanted))
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise ArgumentError(f"category is {numbers.dtype} of shape {numbers.shape}: give whole numbers")
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise ArgumentError(
                f"category holds {numbers.min()} to {numbers.max()}: categories lie in [0, {len(self)})"
            )
        parts = [self._items[self._offsets[c] : self._offsets[c + 1]] for c in np.unique(numbers)]
        if len(parts) == 1:
            return parts[0]
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` takes."""
        return {"items": torch.from_numpy(self._items), "offsets": torch.from_numpy(self._offsets)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], n_items: int) -> "Categories":
        """The categories that `tensors` describes."""
        return cls(tensors["items"].numpy(), tensors["offsets"].numpy(), n_items)
