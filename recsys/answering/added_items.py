"""Items that came or went after training: their names, and the catalog that is searched for them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recsys.answering.item_features import AddedFeatures, features_of, later_items, saved_features
from recsys.encoders.later_items import LaterItems
from recsys.errors import ArgumentError, RetrievalError
from recsys.retrieval.changes import Changes
from recsys.retrieval.live import LiveIndex
from recsys.retrieval.new_items import blend

if TYPE_CHECKING:
    import polars

    from recsys.datasets.prepared.vocabulary import Vocabulary

Array = npt.NDArray[np.int64]


class AnswerableItems:
    """Raw ids of everything that may be answered: the log's items, then those added, by index.

    Histories may hold the log's items and those added ones whose features are known, also once these are no
    longer answered; an encoder has no vector for others. One thread at a time may change it, while others
    read.

    Args:
        vocabulary: of the log, V items.
    """

    def __init__(self, vocabulary: "Vocabulary") -> None:
        self._vocabulary = vocabulary
        self._added: list[Any] = []
        self._rows: dict[Any, int] = {}
        self._categories: dict[int, tuple[str, ...]] = {}
        self._titles: dict[int, str] = {}
        self._features: dict[int, AddedFeatures] = {}
        self.renewed = 0
        """How often an item that histories may hold got other features."""

    def encode(self, ids: Iterable[Any]) -> Array:
        """(n,) int64 indices, -1 for an id that is neither in the log nor added."""
        asked = list(ids)
        rows = np.asarray(self._vocabulary.encode(asked), dtype=np.int64)
        if self._added:
            for place in np.flatnonzero(rows < 0).tolist():
                rows[place] = self._rows.get(self._plain(asked[place]), -1)
        return rows

    def readable(self, ids: Iterable[Any]) -> Array:
        """(n,) int64 indices, -1 for an id that a history cannot hold."""
        rows = self.encode(ids)
        known = self._features
        for place in np.flatnonzero(rows >= len(self._vocabulary)).tolist():
            if int(rows[place]) not in known:
                rows[place] = -1
        return rows

    def decode(self, rows: Array) -> "polars.Series":
        """Raw ids of indices."""
        import polars as pl

        known = rows < len(self._vocabulary)
        names = self._vocabulary.decode(np.where(known, rows, 0))
        if bool(known.all()):
            return names
        added = pl.Series(names.name, self._added, dtype=names.dtype)
        fresh = added.gather(np.where(known, 0, rows - len(self._vocabulary)))
        return names.zip_with(pl.Series(known), fresh)

    def add(self, ids: Sequence[Any]) -> Array:
        """Indices of ids, new ones for those that are neither in the log nor added.

        Raises:
            ArgumentError: an id is not of the log's kind (whole numbers or text); nothing is then added.
        """
        rows = self.encode(ids)
        places = np.flatnonzero(rows < 0).tolist()
        names = [self._named(ids[place]) for place in places]
        for place, name in zip(places, names, strict=True):
            if name not in self._rows:
                # An index is found only when its name is there.
                self._added.append(name)
                self._rows[name] = len(self._vocabulary) + len(self._added) - 1
            rows[place] = self._rows[name]
        return rows

    def categorize(self, rows: Array, categories: Iterable[Sequence[str]]) -> None:
        """Say to which categories items belong that the log does not know; the log's own keep theirs."""
        size = len(self._vocabulary)
        own = {r: tuple(names) for r, names in zip(rows.tolist(), categories, strict=True) if r >= size}
        # Another mapping, for those who are reading this one.
        self._categories = {**self._categories, **own}

    def entitle(self, rows: Array, titles: Iterable[str | None]) -> None:
        """Say what items are called that the log does not know; None leaves what was said before."""
        size = len(self._vocabulary)
        pairs = zip(rows.tolist(), titles, strict=True)
        own = {row: title for row, title in pairs if row >= size and title is not None}
        # Another mapping, for those who are reading this one.
        self._titles = {**self._titles, **own}

    def described(self, rows: Array, features: Sequence[AddedFeatures]) -> dict[int, AddedFeatures]:
        """The features of all added items, with those of some anew; `describe` lets histories hold them."""
        return {**self._features, **dict(zip(rows.tolist(), features, strict=True))}

    def describe(self, features: dict[int, AddedFeatures]) -> None:
        """Let histories hold the added items that have features, by index, which the encoder knows by now."""
        self.renewed += any(features.get(row) is not own for row, own in self._features.items())
        self._features = features

    @property
    def features(self) -> Mapping[int, AddedFeatures]:
        """Features of added items by index, of those that have some."""
        return self._features

    @property
    def later(self) -> LaterItems | None:
        """The features of added items as an encoder reads them; None where there are none."""
        return later_items(self._features, len(self._vocabulary))

    @property
    def titles(self) -> Mapping[int, str]:
        """Titles of added items by index, of those that have one."""
        return self._titles

    def of_category(self, wanted: Iterable[str]) -> Array:
        """(n,) int64 ascending indices of added items that belong to any of some categories."""
        asked = set(wanted)
        return np.array(sorted(r for r, own in self._categories.items() if asked & set(own)), dtype=np.int64)

    def changes(self, live: LiveIndex) -> Changes:
        """What came and went, as it is saved: the added items that are still there, numbered anew.

        Features are kept of those that went, too: histories may still hold them.
        """
        found = live.changes()
        size = len(self._vocabulary)
        new = found.ids >= size
        labels = tuple(
            [
                self._added[row - size],
                list(self._categories.get(row, ())),
                *([self._titles[row]] if row in self._titles else []),
            ]
            for row in found.ids[new].tolist()
        )
        ids = np.concatenate([found.ids[~new], size + np.arange(len(labels))])
        there = set(found.ids[new].tolist())
        own = sorted(self._features, key=lambda row: (row not in there, row))
        extra = saved_features([self._added[row - size] for row in own], [self._features[row] for row in own])
        return Changes(found.gone, ids, found.vectors, labels, extra)

    def restore(self, changes: Changes) -> None:
        """Take the names of items that were added before the index was saved.

        Raises:
            RetrievalError: they are not names of such items.
        """
        size = len(self._vocabulary)
        damaged = RetrievalError("the saved changes do not name their items: build the index again")
        if int((changes.ids >= size).sum()) != len(changes.labels):
            raise damaged
        for label in changes.labels:
            if not isinstance(label, list) or len(label) not in (2, 3) or self._plain(label[0]) != label[0]:
                raise damaged
            name, categories, *title = label
            if name in self._rows or self._vocabulary.encode([name])[0] >= 0:
                raise damaged
            if not isinstance(categories, list) or not all(isinstance(c, str) for c in categories):
                raise damaged
            if not all(isinstance(own, str) for own in title):
                raise damaged
            row = self._rows[name] = size + len(self._added)
            self._added.append(name)
            if categories:
                self._categories[row] = tuple(categories)
            if title:
                self._titles[row] = title[0]
        features: dict[int, AddedFeatures] = {}
        for name, own in features_of(changes.extra):
            if self._plain(name) != name or self._vocabulary.encode([name])[0] >= 0:
                raise damaged
            if name not in self._rows:
                self._rows[name] = size + len(self._added)
                self._added.append(name)
            features[self._rows[name]] = own
        self._features = features

    def _named(self, value: Any) -> Any:
        """A new item's id as the log's kind of ids, text or a whole number; True and 1.0 are no text."""
        if isinstance(value, bool | float | np.bool_ | np.floating) and not self._vocabulary.is_int:
            raise ArgumentError(f"item {value!r} is no text, as the log's items are: write {str(value)!r}")
        name = None if isinstance(value, bool | np.bool_) else self._plain(value)
        if name is None:
            raise ArgumentError(f"item {value!r} is not a whole number, as the log's items are")
        return name

    def _plain(self, value: Any) -> Any:
        """A raw id as the log's kind of ids; None where it is none."""
        if not self._vocabulary.is_int:
            return str(value)
        try:
            number = int(value)
        except (TypeError, ValueError):
            return None
        return number if isinstance(value, str) or number == value else None


class ReadableItems:
    """What a history may hold: the log's items, and those added with their features.

    Args:
        answerable: that knows both.
    """

    def __init__(self, answerable: AnswerableItems) -> None:
        self._answerable = answerable

    def encode(self, ids: list[Any], /) -> Array:
        """(n,) int64 indices, -1 for an id that a history cannot hold."""
        return self._answerable.readable(ids)


def new_vectors(
    live: LiveIndex,
    count: int,
    *,
    vectors: Any = None,
    like: Sequence[Array] | None = None,
) -> npt.NDArray[np.float32]:
    """Vectors for added items.

    Args:
        live: the catalog.
        count: items added.
        vectors: (count, d) given ones.
        like: or for each, the known items whose mean it gets.

    Raises:
        ArgumentError: not one list per item, or an item that is not in the catalog.
    """
    if like is None:
        return np.asarray(vectors, dtype=np.float32)
    if len(like) != count:
        raise ArgumentError(
            f"{count} items are added and {len(like)} lists say what they are like: give one each"
        )
    version = live.snapshot()
    return np.stack([blend(version.vectors(rows)) for rows in like])
