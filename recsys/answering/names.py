"""The raw ids, titles and categories of a prepared dataset, and of the items added to it since."""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recsys.answering.added_items import AnswerableItems, ReadableItems
from recsys.answering.arguments import id_list
from recsys.answering.popular import PopularItems
from recsys.answering.queries import Array, encode_items
from recsys.config import nearest
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import DataError, UnknownIdError
from recsys.retrieval.categories import Categories
from recsys.retrieval.changes import Changes
from recsys.retrieval.live import LiveIndex

if TYPE_CHECKING:
    import polars

    from recsys.datasets.prepared.vocabulary import Vocabulary

# Columns of the catalog that may hold categories, several joined by |.
CATEGORY_COLUMNS = ("category", "categories", "genre", "genres")


class Names:
    """The raw ids and titles of a prepared dataset.

    They are read at once: a process that changes its folder, or is forked from this one, answers from them
    without the files.

    Attributes:
        store: the dataset.
        users: user ids.
        items: item ids.
        titles: title of each item, or None where the catalog has none.
        answerable: ids of the log's items and of those added since.
        readable: ids of what a history may hold: the log's items, and those added with their features.
    """

    def __init__(self, store: SequenceStore) -> None:
        from recsys.datasets.prepared.vocabulary import item_table, item_vocabulary, user_vocabulary

        self.store = store
        self.users: Vocabulary = user_vocabulary(store)
        self.items: Vocabulary = item_vocabulary(store)
        self.answerable = AnswerableItems(self.items)
        self.readable = ReadableItems(self.answerable)
        table = item_table(store)
        self.titles: polars.Series | None = table["title"] if "title" in table.columns else None
        column = next((name for name in CATEGORY_COLUMNS if name in table.columns), None)
        self._listed: list[Any] | None = None if column is None else table[column].to_list()

    @cached_property
    def popular(self) -> PopularItems:
        """The log's items by training events."""
        return PopularItems(self.store.item_counts())

    def changes(self, live: LiveIndex | None) -> Changes | None:
        """What came and went, as it is saved; None for an index that never changed."""
        return None if live is None else self.answerable.changes(live)

    def answerable_rows(self, ids: Iterable[Any], what: str) -> Array:
        """Indices of items that may be answered.

        Raises:
            UnknownIdError: one is in neither the log nor the items added.
        """
        rows = encode_items(ids, self.answerable, "raise", what, choice=False)
        assert rows is not None
        return rows

    def titles_of(self, rows: Array) -> "polars.Series | None":
        """Titles of items, null for those without; None where neither catalog nor added items have any."""
        import polars as pl

        added = self.answerable.titles
        if self.titles is None:
            return (
                pl.Series("title", [added.get(r) for r in rows.tolist()], dtype=pl.String) if added else None
            )
        known = rows < len(self.titles)
        titles = self.titles[np.where(known, rows, 0)]
        if bool(known.all()):
            return titles
        fresh = pl.Series(titles.name, [added.get(row) for row in rows.tolist()], dtype=titles.dtype)
        return titles.zip_with(as_mask(known), fresh)

    @property
    def has_categories(self) -> bool:
        """Whether the catalog has a column of categories."""
        return self._listed is not None

    @cached_property
    def categories(self) -> "tuple[list[str], Categories]":
        """Names of the categories, and their items.

        Raises:
            DataError: the catalog has no column of categories.
        """
        if self._listed is None:
            raise DataError(
                f"{self.store.path}: the catalog has no column {', '.join(CATEGORY_COLUMNS)}; prepare the "
                "log with items="
            )
        listed = [[] if text is None else str(text).split("|") for text in self._listed]
        known = sorted({name for names in listed for name in names})
        number = {name: place for place, name in enumerate(known)}
        return known, Categories.of_items([[number[n] for n in names] for names in listed], len(known))

    def of_category(self, wanted: str | Iterable[str]) -> Array:
        """(n,) ascending items of a category, or of any of several, those added since among them.

        Raises:
            UnknownIdError: no item is of that category.
        """
        known, categories = self.categories
        asked = [wanted] if isinstance(wanted, str) else id_list(wanted, "category")
        for name in asked:
            if name not in known:
                raise UnknownIdError(f"unknown category {name!r}{nearest(str(name), known)}")
        own = categories.items([known.index(name) for name in asked])
        return np.concatenate([own, self.answerable.of_category(asked)])


def as_mask(values: npt.NDArray[np.bool_]) -> "polars.Series":
    """(n,) booleans as a polars series."""
    import polars as pl

    return pl.Series(values)
