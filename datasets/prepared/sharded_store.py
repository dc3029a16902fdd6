"""Open a store of shards: one dataset in many folders, of which a process opens those it reads.

Opening reads the manifest, the catalog's counts and the sizes of the shared files; ranges and counts were
checked when the shards were written, and a shard is checked when it is opened. Users are those of shard 0,
then those of shard 1, and so on.
"""

from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.files import META_FILE, check_size, map_array, sha256_of
from recsys.datasets.prepared.item_features import FEATURE_ARRAYS, ItemFeatures
from recsys.datasets.prepared.memory import refuse_more_than_free
from recsys.datasets.prepared.shards import COUNTS_FILE, MANIFEST_FILE, fingerprint_of, read_manifest
from recsys.datasets.prepared.store import VERIFY_BYTES, SequenceStore
from recsys.errors import ArgumentError, DataError

__all__ = ["ShardedStore", "events_of"]

_OPEN_SHARDS = 64
_BY_EVENT = ("items", "timestamps", "utc_offsets")
_BY_USER = ("offsets", "valid_start", "test_start")


class ShardedStore(SequenceStore):
    """A prepared dataset in S shards; `SequenceStore.open` gives one where the folder holds shards.

    All that a `SequenceStore` has is here, too: its arrays over all users are put together in memory when
    one is first asked for. What is done for a shard at a time asks for `shard` instead.

    Attributes:
        shards: what the manifest knows of each.
        starts: (S+1,) int64 index of each shard's first user.
    """

    def __init__(self, path: Path, verify: bool | None = None) -> None:
        manifest, self.shards = read_manifest(path)
        self.path = self._found_at = path
        self.meta = manifest
        for name, entry in manifest["files"].items():
            check_size(path / name, entry)
        self._opened: OrderedDict[int, SequenceStore] = OrderedDict()
        self._sound: set[int] = set()
        self.starts = np.concatenate(([0], np.cumsum([shard.users for shard in self.shards])))
        n_items = manifest["counts"]["items"]
        self._training_counts: NDArray[np.int64] = map_array(path / COUNTS_FILE, np.int64)
        if len(self._training_counts) != n_items:
            raise DataError(
                f"{path / COUNTS_FILE}: holds {len(self._training_counts)} values, {n_items} belong there;"
                " prepare the log again"
            )
        features = {
            name: map_array(path / f"{name}.npy", dtype, 2 if name == "item_vectors" else 1)
            for name, dtype in FEATURE_ARRAYS.items()
            if f"{name}.npy" in manifest["files"]
        }
        self.item_features = ItemFeatures.of(path, features, manifest["counts"])
        self.event_codes = self.request_codes = self.event_weights = self.event_targets = None
        self.event_columns = self.user_codes = self.slates = self.unread = None
        self.fingerprint = fingerprint_of(manifest)
        if not self.has_times:
            self.timestamps = None
        if not self.has_zones:
            self.utc_offsets = None
        if verify is None:
            in_all = sum(entry["bytes"] for entry in manifest["files"].values()) + 12 * self.n_events
            verify = in_all < VERIFY_BYTES
        if verify:
            self.verify()

    def __getattr__(self, name: str) -> Any:
        if name in _BY_EVENT or name in _BY_USER:
            array = self._together(name)
            self.__dict__[name] = array
            return array
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    @property
    def n_users(self) -> int:
        """U, users of all shards."""
        return int(self.starts[-1])

    @property
    def n_events(self) -> int:
        """N, events of all users."""
        return int(self.meta["counts"]["events"])

    @property
    def event_inputs(self) -> None:
        """None: a store of shards keeps no columns."""
        return None

    @property
    def request_inputs(self) -> None:
        """None: a store of shards keeps no columns."""
        return None

    @property
    def n_shards(self) -> int:
        """S."""
        return len(self.shards)

    @property
    def has_times(self) -> bool:
        """Whether events have times."""
        return self.meta["time"] is not None

    @property
    def has_zones(self) -> bool:
        """Whether local times are known."""
        return self.has_times and self.meta["time"]["time_zone"] is not None

    @property
    def most_trained(self) -> int:
        """Training events of the user who has most."""
        return max(shard.most_trained for shard in self.shards)

    @property
    def untrained_users(self) -> int:
        """Users without a training event."""
        return sum(shard.untrained_users for shard in self.shards)

    @property
    def has_validation(self) -> bool:
        """Whether any user has a validation event."""
        return any(shard.valid_users for shard in self.shards)

    @property
    def has_tests(self) -> bool:
        """Whether any user has a test event after another event."""
        return any(shard.tested_after_history for shard in self.shards)

    def shard(self, number: int) -> SequenceStore:
        """Open one shard.

        Raises:
            ArgumentError: there is no such shard.
            DataError: it is missing or damaged, or is another one than the manifest names.
        """
        if not 0 <= number < self.n_shards:
            raise ArgumentError(f"shard={number} is out of range: choose one in [0, {self.n_shards})")
        entry = self.shards[number]
        folder = self._folder_of(entry.name)
        if number in self._opened:
            self._opened.move_to_end(number)
            self._opened[number].path = folder  # the whole store may have moved
            return self._opened[number]
        try:
            found = sha256_of(folder / META_FILE)
        except OSError:
            raise DataError(f"{folder}: the shard is missing; prepare the log again") from None
        if found != entry.meta_sha256:
            raise DataError(
                f"{folder / META_FILE}: is not what {MANIFEST_FILE} names (sha256); put the shards of one"
                " preparation together, or prepare the log again"
            )
        # Its bytes are compared once by this process, not every time.
        store = SequenceStore._mapped(folder) if number in self._sound else SequenceStore.open(folder)
        self._sound.add(number)
        self._opened[number] = store
        if len(self._opened) > _OPEN_SHARDS:
            self._opened.popitem(last=False)
        return store

    def of_users(self, users: NDArray[np.int64]) -> SequenceStore:
        """The events of some users alone, in memory, as a store of their own.

        Item counts stay those of this store: what was learned does not change.

        Args:
            users: (n,) int64 indices in rising order.
        """
        shards = np.searchsorted(self.starts, users, side="right") - 1
        taken: dict[str, list[NDArray[Any]]] = {}
        at = 0
        for number in np.unique(shards).tolist():
            store = self.shard(number)
            own = users[shards == number] - self.starts[number]
            first = np.asarray(store.offsets[own], dtype=np.int64)
            lengths = np.asarray(store.offsets[own + 1], dtype=np.int64) - first
            moved = at + np.cumsum(lengths) - lengths
            rows = np.repeat(first - moved, lengths) + at + np.arange(int(lengths.sum()))
            for name in _BY_EVENT:
                array = getattr(store, name)
                if array is not None:
                    taken.setdefault(name, []).append(array[rows])
            taken.setdefault("offsets", []).append(moved)
            for name in ("valid_start", "test_start"):
                taken.setdefault(name, []).append(getattr(store, name)[own] - first + moved)
            at += int(lengths.sum())
        taken.setdefault("offsets", []).append(np.array([at], dtype=np.int64))
        if len(users) == 0:
            taken |= {
                name: [getattr(self.shard(0), name)[:0]] for name in ("items", "valid_start", "test_start")
            }
        arrays = {name: np.concatenate(pieces) for name, pieces in taken.items()}
        return self._in_memory(arrays, len(users))

    def whole(self) -> SequenceStore:
        """All users, in memory."""
        names = [*_BY_EVENT, *_BY_USER]
        arrays = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return self._in_memory(arrays, self.n_users)

    def with_items(self, items: NDArray[np.int32]) -> SequenceStore:
        """As of a `SequenceStore`; the events of all shards are put together in memory."""
        return self.whole().with_items(items)

    def renumbered(self, numbers: NDArray[np.int32], n_items: int) -> SequenceStore:
        """As of a `SequenceStore`; the events of all shards are put together in memory."""
        return self.whole().renumbered(numbers, n_items)

    def train_sequence(self, user: int) -> NDArray[np.int32]:
        """(L,) int32 items of a user's training events, oldest first."""
        store, own = self._of(user)
        return store.train_sequence(own)

    def history(self, user: int, split: Literal["valid", "test", "all"] = "test") -> NDArray[np.int32]:
        """As of a `SequenceStore`."""
        store, own = self._of(user)
        return store.history(own, split)

    def verify(self) -> None:
        """Compare the sha256 of every file of every shard with the one recorded.

        Raises:
            DataError: a file's bytes changed since it was prepared.
        """
        super().verify()
        for number in range(self.n_shards):
            self._opened.pop(number, None)
            self.shard(number).verify()

    @cached_property
    def _item_counts(self) -> NDArray[np.int64]:
        return np.array(self._training_counts)

    def _folder_of(self, name: str) -> Path:
        """Where a shard lies: under the path, or where that is a name for messages, where it was opened."""
        folder = self.path / name
        return folder if folder.is_dir() else self._found_at / name

    def _of(self, user: int) -> tuple[SequenceStore, int]:
        self._check_user(user)
        number = int(np.searchsorted(self.starts, user, side="right")) - 1
        return self.shard(number), user - int(self.starts[number])

    def _in_memory(self, arrays: dict[str, NDArray[Any]], n_users: int) -> SequenceStore:
        counts = self.meta["counts"] | {"users": n_users, "events": len(arrays["items"])}
        store = SequenceStore(self.path, self.meta | {"counts": counts}, arrays)
        store.item_features = self.item_features
        store.fingerprint = self.fingerprint
        store.__dict__["_item_counts"] = self._item_counts
        return store

    def _together(self, name: str) -> NDArray[Any]:
        """One array over all users."""
        width = {"items": 4, "utc_offsets": 4}.get(name, 8)
        of_all = self.n_events if name in _BY_EVENT else self.n_users
        refuse_more_than_free(width * of_all, f"{self.path}: {name} of all {self.n_shards} shards")
        pieces = []
        at = 0
        for number in range(self.n_shards):
            store = self.shard(number)
            piece: NDArray[Any] = np.asarray(getattr(store, name))
            if name in _BY_USER:
                piece = piece[:-1] + at if name == "offsets" else piece + at
            pieces.append(piece)
            at += store.n_events
        if name == "offsets":
            pieces.append(np.array([at], dtype=np.int64))
        return np.concatenate(pieces)


def events_of(store: SequenceStore, users: NDArray[np.int64]) -> tuple[SequenceStore, NDArray[np.int64]]:
    """A store in which the events of some users lie, and the users' places in it.

    It is the store itself, or for shards one of the users' events alone.

    Args:
        store: the prepared data.
        users: (n,) int64 indices in any order.
    """
    if not isinstance(store, ShardedStore):
        return store, users
    distinct, places = np.unique(users, return_inverse=True)
    return store.of_users(distinct), places
