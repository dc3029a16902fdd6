"""Which items a search may return: per-user exclusions, an allow-list and a deny-list merged into one."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.kernels.rescoring import exclude_ids, is_sorted_within

Ints = NDArray[np.int64]

# A deny-list up to this long is added to every row's exclusions (over-fetched), unless the batch makes too
# many of them; otherwise it becomes an allow-list of the rest.
DENY_AS_EXCLUSION = 1024
_DENIED_PAIRS_LIMIT = 1_000_000


@dataclass(slots=True)
class Filters:
    """Merged filters of one search.

    Attributes:
        n_items: catalog size V.
        n_rows: queries b.
        ids: (E,) int64 excluded ids, distinct and ascending within each row.
        offsets: (b+1,) int64, row r excludes ids[offsets[r]:offsets[r+1]].
        candidates: (C,) int64 ascending, the only ids allowed for every row; None for all.
    """

    n_items: int
    n_rows: int
    ids: Ints
    offsets: Ints
    candidates: Ints | None
    _keys: Ints = field(repr=False)

    @property
    def excludes(self) -> bool:
        """Whether any row excludes anything."""
        return len(self.ids) > 0

    def permits(self, ids: Ints, rows: Ints | None = None) -> NDArray[np.bool_]:
        """Say which ids may be returned; -1, the filler, may not.

        Args:
            ids: (r, m) int64.
            rows: (r,) int64 query of each line of ids; None for all queries in order.
        """
        owner = np.arange(self.n_rows, dtype=np.int64) if rows is None else rows
        allowed = (ids >= 0) & (ids < self.n_items)
        if self.excludes:
            allowed &= ~_is_in(owner[:, None] * self.n_items + ids, self._keys)
        if self.candidates is not None:
            allowed &= _is_in(ids, self.candidates)
        return allowed

    def of_rows(self, rows: Ints) -> "Filters":
        """The filters of (r,) of the queries, in this order."""
        sizes = np.diff(self.offsets)[rows]
        offsets: Ints = np.concatenate(([0], np.cumsum(sizes)))
        places = np.repeat(self.offsets[rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
        ids = self.ids[places]
        keys = np.repeat(np.arange(len(rows), dtype=np.int64), sizes) * self.n_items + ids
        return Filters(self.n_items, len(rows), ids, offsets, self.candidates, keys)

    def permitted_counts(self, rows: Ints) -> Ints:
        """(r,) int64: how many items may be returned to each of these queries."""
        first, last = self.offsets[rows], self.offsets[rows + 1]
        if self.candidates is None:
            return self.n_items - (last - first)
        counts = np.empty(len(rows), dtype=np.int64)
        for place, (start, stop) in enumerate(zip(first, last, strict=True)):
            taken = _is_in(self.ids[start:stop], self.candidates)
            counts[place] = len(self.candidates) - np.count_nonzero(taken)
        return counts


def merge_filters(
    n_items: int,
    n_rows: int,
    exclude: tuple[Any, Any] | None = None,
    allow: Any = None,
    deny: Any = None,
) -> Filters:
    """Check the filters of a search and merge them.

    Args:
        n_items: catalog size V.
        n_rows: queries b.
        exclude: (ids (E,), offsets (b+1,)) integer arrays or tensors, what each row must not get; repeats
            are harmless.
        allow: (A,) ids that may be returned to anyone; None for all. An empty list allows nothing.
        deny: (D,) ids that nobody gets.

    Raises:
        ArgumentError: an id outside [0, V), offsets that do not fit, or values that are not whole numbers.
    """
    keys = np.zeros(0, dtype=np.int64)
    if exclude is not None:
        ids, offsets = _check_exclude(exclude, n_items, n_rows)
        keys = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(offsets)) * n_items + ids
    candidates = None if allow is None else ascending_ids("allow", allow, n_items)
    denied = None if deny is None else ascending_ids("deny", deny, n_items)
    if denied is not None and len(denied):
        if candidates is not None:
            candidates = exclude_ids(candidates, denied)
        elif len(denied) > DENY_AS_EXCLUSION or len(denied) * n_rows > _DENIED_PAIRS_LIMIT:
            left = np.ones(n_items, dtype=np.bool_)
            left[denied] = False
            candidates = np.flatnonzero(left)
        else:
            everyone = np.arange(n_rows, dtype=np.int64)[:, None] * n_items + denied
            keys = np.concatenate([keys, everyone.ravel()])
    if len(keys) == 0:
        none: Ints = np.zeros(n_rows + 1, dtype=np.int64)
        return Filters(n_items, n_rows, keys, none, candidates, keys)
    keys = _distinct(keys)
    merged_offsets = np.searchsorted(keys, np.arange(n_rows + 1, dtype=np.int64) * n_items).astype(np.int64)
    return Filters(n_items, n_rows, keys % n_items, merged_offsets, candidates, keys)


def _check_exclude(exclude: tuple[Any, Any], n_items: int, n_rows: int) -> tuple[Ints, Ints]:
    if not isinstance(exclude, tuple) or len(exclude) != 2:
        raise ArgumentError(
            "exclude must be a pair (ids, offsets): one list of ids, cut by offsets into rows"
        )
    ids = check_ids("exclude ids", exclude[0], n_items)
    offsets = _whole("exclude offsets", exclude[1])
    fits = len(offsets) == n_rows + 1 and offsets[0] == 0 and offsets[-1] == len(ids)
    if not fits or np.any(np.diff(offsets) < 0):
        raise ArgumentError(
            f"exclude offsets must be {n_rows + 1} rising numbers from 0 to {len(ids)}, one row per query: "
            f"{len(offsets)} were given"
        )
    return ids, offsets


def check_ids(name: str, ids: Any, n_items: int) -> Ints:
    """Item ids as int64, or an ArgumentError that names them."""
    values = _whole(name, ids)
    if values.size and (values.min() < 0 or values.max() >= n_items):
        outside = (values < 0) | (values >= n_items)
        raise ArgumentError(f"{name} holds {values[np.argmax(outside)]}: item ids lie in [0, {n_items})")
    return values


def ascending_ids(name: str, ids: Any, n_items: int) -> Ints:
    """Item ids as ascending distinct int64, a copy, or an ArgumentError that names them."""
    values = _whole(name, ids)
    # One look at what is in order already, as a category's list is every time.
    return values if is_sorted_within(values, n_items) else _distinct(check_ids(name, values, n_items))


def _whole(name: str, values: Any) -> Ints:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(
            f"{name} is {array.dtype} of shape {array.shape}: give a flat list of whole numbers"
        )
    return array.astype(np.int64)


def _distinct(keys: Ints) -> Ints:
    """Ascending distinct keys; np.unique hashes, which takes several times as long here."""
    if bool((keys[1:] > keys[:-1]).all()):
        return keys
    ordered = np.sort(keys)
    fresh = np.ones(len(ordered), dtype=np.bool_)
    fresh[1:] = ordered[1:] != ordered[:-1]
    distinct: Ints = ordered[fresh]
    return distinct


def _is_in(values: Ints, ordered: Ints) -> NDArray[np.bool_]:
    """Whether each value is in an ascending array."""
    if len(ordered) == 0:
        return np.zeros(values.shape, dtype=np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[places] == values
    return found
