"""Items added and removed while searches go on, without a rebuild in anybody's way.

A version is immutable: a base index, a small flat index of added items beside it, and the base rows that
are gone (removed or replaced). An update makes a new version and puts it in place by one assignment, so a
search, which takes the version once, sees one catalog from end to end and never waits. When the additions
and removals have grown, a background thread builds a new base from them. This works over every kind: a
graph cannot remove, a GPU graph cannot add.
"""

import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.forks import Lock
from recsys.retrieval.backends import on_server
from recsys.retrieval.changes import Changes
from recsys.retrieval.checks import check_vectors
from recsys.retrieval.filters import Ints, check_ids
from recsys.retrieval.item_index import ItemIndex, NeighborArrays
from recsys.retrieval.merging import merge_best
from recsys.retrieval.metric import Floats32, normalized

_ANY_ID = 2**62


class VersionedAnswers(NamedTuple):
    """Answers and the catalog that gave them."""

    scores: Floats32
    """(b, k) float32, best first; -inf where no candidate was left."""

    ids: Ints
    """(b, k) int64 item ids; -1 where no candidate was left."""

    version: int
    """Number of the version that was searched."""


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """One state of the catalog.

    Attributes:
        number: counted from 0, one more with every update and every new base.
        base: an index over most items.
        base_ids: (V,) int64 ascending item ids of its rows.
        gone: (g,) int64 ascending base rows that are no longer answered.
        added: a flat index of items that the base lacks, or None.
        added_ids: (m,) int64 ascending item ids of its rows.
    """

    number: int
    base: ItemIndex
    base_ids: Ints
    gone: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    added: ItemIndex | None = None
    added_ids: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def n_items(self) -> int:
        """n, items that may be answered."""
        return len(self.base_ids) - len(self.gone) + len(self.added_ids)

    @property
    def ids(self) -> Ints:
        """(n,) int64 ascending ids of all items."""
        return np.union1d(np.delete(self.base_ids, self.gone), self.added_ids)

    def vectors(self, ids: Ints) -> Floats32:
        """(n, d) float32 vectors of items, as searched.

        Raises:
            ArgumentError: an item is not in the catalog.
        """
        out = np.empty((len(ids), self.base.width), dtype=np.float32)
        rows, known = _places(self.base_ids, ids)
        known &= ~np.isin(rows, self.gone)
        fresh, new = _places(self.added_ids, ids)
        if not bool((known | new).all()):
            missing = ids[~(known | new)][0]
            raise ArgumentError(f"item {missing} is not in the catalog: add it, or leave it out")
        out[known] = self.base.vectors_of(rows[known])
        if self.added is not None:
            out[new] = self.added.vectors_of(fresh[new])
        return out

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: tuple[Any, Any] | None = None,
        allow: Any = None,
        deny: Any = None,
    ) -> VersionedAnswers:
        """Find the k best items of each query; as `ItemIndex.search`, in item ids.

        Ids that the catalog lacks are harmless in filters: a history may hold items that are gone.

        Raises:
            ArgumentError: as `ItemIndex.search`.
        """
        allow = None if allow is None else check_ids("allow", allow, _ANY_ID)
        deny = None if deny is None else check_ids("deny", deny, _ANY_ID)
        parts = [self._part(self.base, self.base_ids, self.gone, queries, k, exclude, allow, deny)]
        if self.added is not None:
            nothing = np.zeros(0, dtype=np.int64)
            parts.append(self._part(self.added, self.added_ids, nothing, queries, k, exclude, allow, deny))
        scores, ids = merge_best(parts, k)
        return VersionedAnswers(scores, ids, self.number)

    @staticmethod
    def _part(
        index: ItemIndex,
        names: Ints,
        gone: Ints,
        queries: NDArray[np.floating[Any]],
        k: int,
        exclude: tuple[Any, Any] | None,
        allow: Ints | None,
        deny: Ints | None,
    ) -> tuple[Floats32, Ints]:
        """Search one of the two indexes, its rows named by item ids."""
        if exclude is not None:
            exclude = _rows_excluded(names, exclude)
        if allow is not None:
            rows, known = _places(names, allow)
            allow = rows[known]
        if deny is not None:
            rows, known = _places(names, deny)
            gone = np.union1d(gone, rows[known])
        found: NeighborArrays = index.search(queries, k, exclude=exclude, allow=allow, deny=gone)
        return found.scores, np.where(found.ids >= 0, names[found.ids], -1)


class LiveIndex:
    """A catalog that changes while it is searched.

    Args:
        base: the index to begin with.
        ids: (V,) int64 distinct ids of its rows, ascending; None numbers them from 0.
        rebuild_share: additions and removals, as a share of the base, that call for a new base in the
            background; None leaves that to `rebuild`.
        rebuild_least: ... and at least so many of them: a scan of fewer costs next to nothing.
        changes: what came and went since the base was built, as `changes` gave it; with ids=None.

    Attributes:
        first: the index that it began with.
        rebuild_share: may be set to None by who searches once, to whom no rebuild is of use.

    Raises:
        ArgumentError: the ids are not one per row, ascending.
    """

    def __init__(
        self,
        base: ItemIndex,
        ids: Any = None,
        *,
        rebuild_share: float | None = 0.05,
        rebuild_least: int = 1000,
        changes: Changes | None = None,
    ) -> None:
        names = np.arange(base.n_items, dtype=np.int64) if ids is None else check_ids("ids", ids, _ANY_ID)
        if len(names) != base.n_items or np.any(np.diff(names) <= 0):
            raise ArgumentError(f"ids must be {base.n_items} ascending numbers, one per row of the index")
        self.first = base
        self._first_ids = names
        self._version = Version(0, base, names)
        if changes is not None:
            fresh = Version(0, base, names, changes.gone)
            self._version = _with_added(fresh, changes.ids, changes.vectors)
        self.rebuild_share = rebuild_share
        self._rebuild_least = rebuild_least
        self._lock = Lock()
        self._building = Lock()
        self._touched: set[int] | None = None
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        raise ArgumentError("an index that changes is not pickled: save_live() it, and load_live() elsewhere")

    def snapshot(self) -> Version:
        """The catalog as it is now; it stays as it is."""
        return self._version

    def search(self, queries: NDArray[np.floating[Any]], k: int, **filters: Any) -> VersionedAnswers:
        """Search the catalog as it is now; see `Version.search`."""
        return self._version.search(queries, k, **filters)

    def update(self, *, add: tuple[Any, Any] | None = None, remove: Any = None) -> int:
        """Add, replace and remove items in one step.

        Args:
            add: (ids (n,), vectors (n, d)); items that are there get the new vector.
            remove: (m,) ids; those that are not there are no error.

        Returns:
            The number of the new version.

        Raises:
            ArgumentError: an id is added twice or both added and removed, a vector is not finite or of
                another width, or nothing would be left.
            Exception: what a background rebuild failed of; the catalog is right, but keeps growing beside
                its base.
        """
        new_ids, new_vectors = self._checked(add)
        old_ids = np.unique(check_ids("remove", [] if remove is None else remove, _ANY_ID))
        both = np.intersect1d(new_ids, old_ids)
        if len(both):
            raise ArgumentError(f"item {both[0]} is both added and removed: choose one")
        with self._lock:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            self._version = self._changed(self._version, new_ids, new_vectors, old_ids)
            if self._touched is not None:
                self._touched.update(new_ids.tolist(), old_ids.tolist())
            number = self._version.number
            if self._due() and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(
                    target=self._rebuild_quietly, name="recsys-rebuild", daemon=True
                )
                self._thread.start()
        return number

    def rebuild(self) -> None:
        """Build a new base of all items and put it in place; searches and updates go on meanwhile.

        Raises:
            ArgumentError: the base lies on a server.
        """
        with self._building:
            with self._lock:
                begun, self._touched = self._version, set()
            try:
                ids = begun.ids
                base = begun.base.like(begun.vectors(ids))
            except BaseException:
                with self._lock:
                    self._touched = None
                raise
            with self._lock:
                changed = np.array(sorted(self._touched), dtype=np.int64)
                self._touched = None
                now = self._version
                rows, known = _places(ids, changed)
                again = now.added_ids[np.isin(now.added_ids, changed)]
                fresh = Version(now.number + 1, base, ids, np.sort(rows[known]))
                self._version = _with_added(fresh, again, now.vectors(again))

    def changes(self, labels: tuple[Any, ...] = ()) -> Changes:
        """What came and went since the first index, whatever was rebuilt in between.

        Args:
            labels: what the maker calls the items that the first index has no row for.

        Raises:
            ArgumentError: the rows of the first index have ids of their own.
        """
        version = self._version
        if self._first_ids[-1] != len(self._first_ids) - 1:
            raise ArgumentError("changes are kept of items that are numbered by the index's rows: ids=None")
        if version.base is self.first:
            return Changes(version.gone, version.added_ids, version.vectors(version.added_ids), labels)
        ids = version.ids
        rows, same = _places(self._first_ids, ids)
        same[same] = (self.first.vectors_of(rows[same]) == version.vectors(ids[same])).all(axis=1)
        gone = np.setdiff1d(np.arange(self.first.n_items, dtype=np.int64), rows[same])
        return Changes(gone, ids[~same], version.vectors(ids[~same]), labels)

    def wait(self) -> None:
        """Wait for a background rebuild to end, if there is one."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _rebuild_quietly(self) -> None:
        try:
            self.rebuild()
        except Exception as error:
            self._failure = error

    def _due(self) -> bool:
        # What lies on a server is built there on purpose, and by one process.
        if self.rebuild_share is None or on_server(self._version.base.kind):
            return False
        version = self._version
        changes = len(version.gone) + len(version.added_ids)
        return changes >= max(self._rebuild_least, self.rebuild_share * version.base.n_items)

    def _checked(self, add: tuple[Any, Any] | None) -> tuple[Ints, Floats32]:
        base = self._version.base
        if add is None:
            return np.zeros(0, dtype=np.int64), np.zeros((0, base.width), dtype=np.float32)
        ids = check_ids("add ids", add[0], _ANY_ID)
        given = add[1] if isinstance(add[1], torch.Tensor) else np.asarray(add[1])
        vectors: Floats32 = check_vectors("add vectors", given).cpu().numpy()
        if vectors.shape != (len(ids), base.width):
            raise ArgumentError(f"add vectors has shape {vectors.shape}: give ({len(ids)}, {base.width})")
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        if np.any(np.diff(ids) == 0):
            raise ArgumentError(f"item {ids[:-1][np.diff(ids) == 0][0]} is added twice: give each id once")
        return ids, normalized(vectors[order]) if base.metric == "cosine" else vectors[order]

    @staticmethod
    def _changed(version: Version, new_ids: Ints, new_vectors: Floats32, old_ids: Ints) -> Version:
        """The version after an update."""
        touched = np.union1d(new_ids, old_ids)
        rows, known = _places(version.base_ids, touched)
        gone = np.union1d(version.gone, rows[known])
        kept = version.added_ids[~np.isin(version.added_ids, touched)]
        ids = np.concatenate([kept, new_ids])
        vectors = np.concatenate([version.vectors(kept), new_vectors])
        if len(gone) == version.base.n_items and len(ids) == 0:
            raise ArgumentError("remove: the last items cannot go, an index holds at least one")
        order = np.argsort(ids)
        fresh = Version(version.number + 1, version.base, version.base_ids, gone)
        return _with_added(fresh, ids[order], vectors[order])


def _with_added(version: Version, ids: Ints, vectors: Floats32) -> Version:
    if len(ids) == 0:
        return version
    kind = "exact" if version.base.kind == "exact" or on_server(version.base.kind) else "flat"
    added = version.base.like(vectors, kind=kind)
    return Version(version.number, version.base, version.base_ids, version.gone, added, ids)


def _places(names: Ints, ids: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Rows of ids among ascending names, and which of them are there."""
    if len(names) == 0:
        return np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.bool_)
    rows = np.minimum(np.searchsorted(names, ids), len(names) - 1)
    known: NDArray[np.bool_] = names[rows] == ids
    return rows, known


def _rows_excluded(names: Ints, exclude: tuple[Any, Any]) -> tuple[Ints, Ints]:
    """Exclusions as rows; ids without a row are left out."""
    ids = check_ids("exclude ids", exclude[0], _ANY_ID)
    offsets = np.asarray(exclude[1], dtype=np.int64)
    if len(offsets) == 0 or offsets[-1] != len(ids):
        return ids, offsets  # refused by the index, in its words
    rows, known = _places(names, ids)
    before = np.concatenate(([0], np.cumsum(known)))
    return rows[known], before[offsets].astype(np.int64)
