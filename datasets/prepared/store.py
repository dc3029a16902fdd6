"""Open a prepared dataset: jagged sequences in a folder, memory-mapped, read with numpy alone.

The folder holds ``meta.json`` and, one after the other for all users, ``items.npy`` int32 (N,),
``timestamps.npy`` int64 (N,) where the log has times, ``offsets.npy`` int64 (U+1,), ``valid_start.npy`` and
``test_start.npy`` int64 (U,); and the vocabularies ``users.parquet`` and ``items.parquet``. Features of
items, where they were asked for: `recsys.datasets.prepared.item_features.ItemFeatures`; further columns,
weights and targets of events: `recsys.datasets.prepared.event_columns`; what was shown:
`recsys.datasets.prepared.slates`; what is predicted and not read: `recsys.datasets.prepared.unread_events`.
"""

import copy
import itertools
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.folders import with_home
from recsys.datasets.prepared.event_columns import EVENT_ARRAYS, EventColumns, check_event_arrays
from recsys.datasets.prepared.files import (
    META_FILE,
    check_size,
    fingerprint,
    map_array,
    read_meta,
    sha256_of,
)
from recsys.datasets.prepared.item_features import FEATURE_ARRAYS, ItemFeatures
from recsys.datasets.prepared.shards import is_sharded
from recsys.datasets.prepared.slates import SLATE_ARRAYS, Slates
from recsys.datasets.prepared.unread_events import UNREAD_ARRAYS, UnreadEvents
from recsys.datasets.prepared.user_codes import CodeRows, with_users
from recsys.errors import ArgumentError, DataError

_ARRAYS: dict[str, type[np.generic]] = {
    "items": np.int32,
    "timestamps": np.int64,
    "utc_offsets": np.int32,
    "offsets": np.int64,
    "valid_start": np.int64,
    "test_start": np.int64,
    **FEATURE_ARRAYS,
    **EVENT_ARRAYS,
    **SLATE_ARRAYS,
    **UNREAD_ARRAYS,
    "user_codes": np.int32,
}
_OPTIONAL = (
    "timestamps",
    "utc_offsets",
    "user_codes",
    *FEATURE_ARRAYS,
    *EVENT_ARRAYS,
    *SLATE_ARRAYS,
    *UNREAD_ARRAYS,
)
_OF_TWO_AXES = ("item_vectors", "event_codes", "request_codes", "user_codes")
_VOCABULARIES = ("users.parquet", "items.parquet")
VERIFY_BYTES = 256 * 2**20
"""Below this size all bytes are compared with their hashes when a dataset is opened."""

_COUNTED_AT_ONCE = 1 << 24
"""Events whose items are counted at once."""


class SequenceStore:
    """A prepared dataset of U users, V items and N events. Make one with `SequenceStore.open`.

    Attributes:
        path: the folder.
        meta: contents of meta.json.
        items: (N,) int32 item of each event, 0..V-1; users one after the other, each in time order.
        timestamps: (N,) int64 unix seconds, or None for a log of order alone.
        utc_offsets: (N,) int32 seconds to add to a timestamp for local time, or None where no time zone was
            stated.
        offsets: (U+1,) int64 first position of each user's events.
        valid_start: (U,) int64 absolute position of each user's first validation event.
        test_start: (U,) int64 absolute position of each user's first test event.
        item_features: what is known of the items besides their ids, or None.
        event_codes: (N, E) int32 codes of what came with each event, or None.
        request_codes: (N, R) int32 codes of what was known before each event, or None.
        user_codes: (U, C) int32 codes of what is known of each user, or None.
        event_weights: (N,) float32 how much each event counts in training, or None where all count alike.
        event_targets: (N,) bool events that are predicted and tested, or None where all are.
        event_columns: what the codes mean, or None where there are none.
        slates: what was shown, or None where that is not kept.
        unread: training events that are predicted and not read, or None where there are none.
        fingerprint: hex sha256 over the data (arrays and ids, not titles); equal for equal datasets.
    """

    def __init__(self, path: Path, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        self.path = path
        self.meta = meta
        self.items: NDArray[np.int32] = arrays["items"]
        self.timestamps: NDArray[np.int64] | None = arrays.get("timestamps")
        self.utc_offsets: NDArray[np.int32] | None = arrays.get("utc_offsets")
        self.offsets: NDArray[np.int64] = arrays["offsets"]
        self.valid_start: NDArray[np.int64] = arrays["valid_start"]
        self.test_start: NDArray[np.int64] = arrays["test_start"]
        self.item_features = ItemFeatures.of(path, arrays, meta["counts"])
        self.event_codes: NDArray[np.int32] | None = arrays.get("event_codes")
        self.request_codes: NDArray[np.int32] | None = arrays.get("request_codes")
        self.user_codes: NDArray[np.int32] | None = arrays.get("user_codes")
        self.event_weights: NDArray[np.float32] | None = arrays.get("event_weights")
        self.event_targets: NDArray[np.bool_] | None = arrays.get("event_targets")
        self.event_columns = EventColumns.of(path, meta)
        self.slates = Slates.of(path, arrays)
        self.unread = UnreadEvents.of(path, arrays)
        self.fingerprint = fingerprint(meta)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool | None = None) -> "SequenceStore":
        """Open a folder that `recsys.datasets.preparing.prepare.prepare` wrote.

        Args:
            path: the folder.
            verify: whether to compare every file's sha256; None does so below 256 MiB in all. Sizes,
                types, shapes and the ranges of ids and positions are always checked.

        Raises:
            DataError: the folder is missing, no prepared dataset, of another format version, incomplete
                or damaged; one line says which file and why.
        """
        folder = with_home(path)
        if is_sharded(folder):
            from recsys.datasets.prepared.sharded_store import ShardedStore

            return ShardedStore(folder, verify)
        store = cls._mapped(folder)
        if verify is None:
            verify = sum(entry["bytes"] for entry in store.meta["files"].values()) < VERIFY_BYTES
        if verify:
            store.verify()
        store._check_ranges()
        return store

    @classmethod
    def _mapped(cls, folder: Path) -> "SequenceStore":
        """Open the folder of one dataset and look at sizes, types and shapes alone: no array is read.

        Raises:
            DataError: as `open`.
        """
        meta = read_meta(folder)
        recorded = meta["files"]
        for name in _VOCABULARIES:
            if name not in recorded:
                raise DataError(f"{folder / META_FILE}: does not list {name}; prepare the log again")
        for name, entry in recorded.items():
            check_size(folder / name, entry)
        arrays = {
            name: map_array(folder / f"{name}.npy", dtype, 2 if name in _OF_TWO_AXES else 1)
            for name, dtype in _ARRAYS.items()
            if f"{name}.npy" in recorded or name not in _OPTIONAL
        }
        store = cls(folder, meta, arrays)
        store._check_shapes()
        return store

    @property
    def n_users(self) -> int:
        """U, users."""
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        """V, items of the catalog."""
        return int(self.meta["counts"]["items"])

    @property
    def n_events(self) -> int:
        """N, events of all users."""
        return len(self.items)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.meta.get("name") or self.path.name)

    @property
    def has_times(self) -> bool:
        """Whether events have times."""
        return self.timestamps is not None

    @property
    def has_zones(self) -> bool:
        """Whether local times of events are known."""
        return self.utc_offsets is not None

    @property
    def event_inputs(self) -> CodeRows | None:
        """Rows (n, E + C) by positions of n events: what came with each, then what its user is known by."""
        return with_users(self.event_codes, self.user_codes, self.offsets)

    @property
    def request_inputs(self) -> CodeRows | None:
        """Rows (n, R + C) likewise: what was known before each event, then what its user is known by."""
        return with_users(self.request_codes, self.user_codes, self.offsets)

    @property
    def most_trained(self) -> int:
        """Training events of the user who has most."""
        return int((self.valid_start - self.offsets[:-1]).max())

    @property
    def untrained_users(self) -> int:
        """Users without a training event."""
        return int(np.count_nonzero(self.valid_start == self.offsets[:-1]))

    @property
    def has_validation(self) -> bool:
        """Whether any user has a validation event."""
        return bool((self.test_start > self.valid_start).any())

    @property
    def has_tests(self) -> bool:
        """Whether any user has a test event after another event."""
        known = self.test_start > self.offsets[:-1]
        return bool((known & (self.test_start < self.offsets[1:])).any())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.path)!r}: {self.n_users:,} users, {self.n_items:,} items,"
            f" {self.n_events:,} events)"
        )

    def train_sequence(self, user: int) -> NDArray[np.int32]:
        """(L,) int32 items of a user's training events, oldest first."""
        self._check_user(user)
        return self.items[self.offsets[user] : self.valid_start[user]]

    def history(self, user: int, split: Literal["valid", "test", "all"] = "test") -> NDArray[np.int32]:
        """(L,) int32 items that may be known when a user's split is predicted, oldest first.

        Args:
            user: index, 0..U-1.
            split: "valid" gives the training events, "test" these and the validation events, "all" every
                event (for recommending after the end of the log).

        Raises:
            ArgumentError: ``user`` or ``split`` is out of range.
        """
        self._check_user(user)
        ends = {"valid": self.valid_start, "test": self.test_start, "all": self.offsets[1:]}
        if split not in ends:
            raise ArgumentError(f"split={split!r} is not known: choose 'valid', 'test' or 'all'")
        return self.items[self.offsets[user] : ends[split][user]]

    def with_items(self, items: NDArray[np.int32]) -> "SequenceStore":
        """The same log with other items in its places, for other orders of tied events.

        Item counts stay those of this store: what was learned does not change.

        Args:
            items: (N,) int32, 0..V-1.

        Raises:
            ArgumentError: not one item for each event.
        """
        if items.shape != self.items.shape:
            raise ArgumentError(f"items has shape {items.shape}: give one for each of {self.n_events} events")
        other = copy.copy(self)
        other.items = items
        other.__dict__["_item_counts"] = self._item_counts
        return other

    def renumbered(self, numbers: NDArray[np.int32], n_items: int) -> "SequenceStore":
        """The same log with its items under the numbers of another catalog, whose features are not its own.

        Args:
            numbers: (V,) int32, for each item of this log its number there, 0..n_items-1.
            n_items: items of that catalog.

        Raises:
            ArgumentError: not one number for each item, or one out of range.
        """
        if numbers.shape != (self.n_items,) or numbers.min() < 0 or numbers.max() >= n_items:
            raise ArgumentError(f"numbers: give one in [0, {n_items}) for each of {self.n_items} items")
        other = copy.copy(self)
        other.items = numbers[self.items]
        other.meta = {**self.meta, "counts": {**self.meta["counts"], "items": n_items}}
        other.item_features = None
        other.slates = None if self.slates is None else self.slates.renumbered(numbers)
        other.unread = None if self.unread is None else self.unread.renumbered(numbers)
        other.__dict__.pop("_item_counts", None)
        return other

    def item_counts(self) -> NDArray[np.int64]:
        """(V,) int64 training events of each item."""
        return self._item_counts.copy()

    @cached_property
    def _item_counts(self) -> NDArray[np.int64]:
        counts = np.zeros(self.n_items, dtype=np.int64)
        first = 0
        while first < self.n_users:  # block by block: the whole log would be copied otherwise
            start = int(self.offsets[first])
            after = int(np.searchsorted(self.offsets, start + _COUNTED_AT_ONCE, side="right")) - 1
            last = min(max(after, first + 1), self.n_users)
            steps = np.zeros(int(self.offsets[last]) - start + 1, dtype=np.int8)
            # A user without training events opens and closes at one place, so places are counted, not set.
            np.add.at(steps, self.offsets[first:last] - start, 1)
            np.add.at(steps, self.valid_start[first:last] - start, -1)
            training = np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_)
            block = self.items[start : start + len(training)]
            counts += np.bincount(block[training], minlength=self.n_items)
            first = last
        return counts

    def verify(self) -> None:
        """Compare the sha256 of every file with the one recorded.

        Raises:
            DataError: a file's bytes changed since it was prepared.
        """
        for name, entry in self.meta["files"].items():
            path = self.path / name
            try:
                found = sha256_of(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
            if found != entry["sha256"]:
                raise DataError(
                    f"{path}: the file changed since it was prepared (sha256); prepare the log again"
                )

    def _check_user(self, user: int) -> None:
        if not 0 <= user < self.n_users:
            raise ArgumentError(f"user={user} is out of range: choose an index in [0, {self.n_users})")

    def _check_shapes(self) -> None:
        n_users, n_items = (self.meta["counts"].get(key) for key in ("users", "items"))
        if not isinstance(n_users, int) or not isinstance(n_items, int) or n_users < 1 or n_items < 1:
            raise DataError(
                f"{self.path / META_FILE}: counts of users and items are wrong; prepare the log again"
            )
        expected = {
            "offsets": n_users + 1,
            "valid_start": n_users,
            "test_start": n_users,
            "timestamps": len(self.items),
            "utc_offsets": len(self.items),
        }
        for name, length in expected.items():
            array = getattr(self, name)
            if array is not None and len(array) != length:
                raise DataError(
                    f"{self.path / name}.npy: holds {len(array)} values, {length} belong there;"
                    " prepare the log again"
                )

    def _check_ranges(self) -> None:
        arrays = {name: getattr(self, name) for name in (*EVENT_ARRAYS, "user_codes")}
        check_event_arrays(self.path, arrays, self.event_columns, self.n_events, self.n_users)
        for kept in (self.slates, self.unread):
            if kept is not None:
                kept.check(self.path, self.n_items, self.n_events)
        if self.offsets[0] != 0 or self.offsets[-1] != self.n_events or np.any(np.diff(self.offsets) < 0):
            raise DataError(
                f"{self.path / 'offsets.npy'}: positions do not rise from 0 to {self.n_events};"
                " prepare the log again"
            )
        marks = (self.offsets[:-1], self.valid_start, self.test_start, self.offsets[1:])
        for earlier, later in itertools.pairwise(marks):
            if np.any(earlier > later):
                raise DataError(
                    f"{self.path}: valid_start.npy and test_start.npy leave their user's events;"
                    " prepare the log again"
                )
        if self.n_events and (self.items.min() < 0 or self.items.max() >= self.n_items):
            raise DataError(
                f"{self.path / 'items.npy'}: an item lies outside [0, {self.n_items}); prepare the log again"
            )


def is_prepared(data: Any) -> bool:
    """Whether ``data`` is an open store or the folder of one.

    Such a folder holds one dataset or shards of one. A folder of Parquet parts is a log, and a known log wins
    over a folder of its name that is no prepared dataset.
    """
    if not isinstance(data, str | Path):
        return isinstance(data, SequenceStore)
    folder = with_home(data)
    if not folder.is_dir() or (folder / META_FILE).is_file() or is_sharded(folder):
        return folder.is_dir()
    from recsys.datasets.reading.parquet_parts import parquet_parts
    from recsys.datasets.sources.known import KNOWN

    return data not in KNOWN and not parquet_parts(folder)


def open_store(data: Any) -> SequenceStore:
    """The store itself, or the one in a prepared folder."""
    return data if isinstance(data, SequenceStore) else SequenceStore.open(data)
