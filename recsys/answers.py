"""From packed requests to ranked raw ids: encode, search, name."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recsys.config import nearest
from recsys.datasets.store import SequenceStore
from recsys.decoding import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError, DataError, UnknownIdError
from recsys.fresh_items import AnswerableItems
from recsys.interests import interest_states
from recsys.jagged import flat_ranges
from recsys.queries import Array, OnUnknown, Queries, encode_items
from recsys.retrieval.categories import Categories
from recsys.retrieval.item_index import ItemIndex
from recsys.window_answers import biased_window, with_window

if TYPE_CHECKING:
    import polars

    from recsys.datasets.store_vocabulary import Vocabulary

# Columns of the catalog that may hold categories, several joined by |.
CATEGORY_COLUMNS = ("category", "categories", "genre", "genres")

# Requests encoded and searched at once.
REQUESTS_PER_BATCH = 4096
Scores = npt.NDArray[np.float32]


class Names:
    """The raw ids and titles of a prepared dataset, read when first needed."""

    def __init__(self, store: SequenceStore) -> None:
        self.store = store

    @cached_property
    def users(self) -> "Vocabulary":
        """User ids."""
        from recsys.datasets.store_vocabulary import user_vocabulary

        return user_vocabulary(self.store)

    @cached_property
    def items(self) -> "Vocabulary":
        """Item ids."""
        from recsys.datasets.store_vocabulary import item_vocabulary

        return item_vocabulary(self.store)

    @cached_property
    def answerable(self) -> AnswerableItems:
        """Ids of the log's items and of those added since."""
        return AnswerableItems(self.items)

    def answerable_rows(self, ids: Iterable[Any], what: str) -> Array:
        """Indices of items that may be answered.

        Raises:
            UnknownIdError: one is in neither the log nor the items added.
        """
        rows = encode_items(ids, self.answerable, "raise", what)
        assert rows is not None
        return rows

    def titles_of(self, rows: Array) -> "polars.Series | None":
        """Titles of items, null for those added since; None where the catalog has no titles."""
        if self.titles is None:
            return None
        known = rows < len(self.titles)
        titles = self.titles.gather(np.where(known, rows, 0))
        return titles.set(~_mask(known), None)

    @cached_property
    def titles(self) -> "polars.Series | None":
        """Title of each item, or None where the catalog has none."""
        from recsys.datasets.store_vocabulary import item_table

        table = item_table(self.store)
        return table["title"] if "title" in table.columns else None

    @cached_property
    def categories(self) -> "tuple[list[str], Categories]":
        """Names of the categories, and their items.

        Raises:
            DataError: the catalog has no column of categories.
        """
        from recsys.datasets.store_vocabulary import item_table

        table = item_table(self.store)
        column = next((name for name in CATEGORY_COLUMNS if name in table.columns), None)
        if column is None:
            raise DataError(
                f"{self.store.path}: the catalog has no column {', '.join(CATEGORY_COLUMNS)}; prepare the "
                "log with --items"
            )
        listed = [[] if text is None else str(text).split("|") for text in table[column].to_list()]
        known = sorted({name for names in listed for name in names})
        number = {name: place for place, name in enumerate(known)}
        return known, Categories.of_items([[number[n] for n in names] for names in listed], len(known))

    def of_category(self, wanted: str | Iterable[str]) -> Array:
        """(n,) ascending items of a category, or of any of several, those added since among them.

        Raises:
            UnknownIdError: no item is of that category.
        """
        known, categories = self.categories
        asked = [wanted] if isinstance(wanted, str) else list(wanted)
        for name in asked:
            if name not in known:
                raise UnknownIdError(f"unknown category {name!r}{nearest(str(name), known)}")
        own = categories.items([known.index(name) for name in asked])
        return np.concatenate([own, self.answerable.of_category(asked)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What may be answered: k items per request, under filters of raw ids."""

    k: int
    exclude_seen: bool
    allow: Iterable[Any] | None
    deny: Iterable[Any] | None
    category: str | Iterable[str] | None = None
    interests: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Ranked answers to R requests.

    Attributes:
        labels: R raw user ids or positions.
        scores: (R, k) float32, best first, -inf past the last answer.
        ids: (R, k) int64 item indices, -1 there.
    """

    labels: list[Any]
    scores: Scores
    ids: Array

    def frame(self, names: Names) -> "polars.DataFrame":
        """Columns user_id, item_id, score, rank, and title where there are titles."""
        import polars as pl

        request, place = np.nonzero(self.ids >= 0)
        rows = self.ids[request, place]
        # The column's type comes from all labels, so that an empty answer keeps it.
        labels = pl.Series("user_id", self.labels)
        columns: dict[str, Any] = {
            "user_id": labels.gather(request),
            "item_id": names.answerable.decode(rows),
            "score": self.scores[request, place],
            "rank": (place + 1).astype(np.int32),
        }
        titles = names.titles_of(rows)
        if titles is not None:
            columns["title"] = titles
        return pl.DataFrame(columns)

    def arrays(self, names: Names) -> tuple[npt.NDArray[np.object_], Scores]:
        """(R, k) raw ids, None past the last answer, and (R, k) scores."""
        raw = np.full(self.ids.shape, None, dtype=object)
        found = self.ids >= 0
        raw[found] = names.answerable.decode(self.ids[found]).to_list()
        return raw, self.scores


def _mask(values: npt.NDArray[np.bool_]) -> "polars.Series":
    import polars as pl

    return pl.Series(values)


def answer(
    encoder: SequenceEncoder,
    decoder: Decoder,
    names: Names,
    queries: Queries,
    wanted: Wanted,
    on_unknown: OnUnknown,
) -> Answers:
    """Rank the catalog for every request, in batches.

    A request of which nothing is known gets the most popular items, with their share of the training
    events as score, and a warning says so.

    Raises:
        ArgumentError: k < 1.
        UnknownIdError: an allowed or denied id is unknown and ``on_unknown="raise"``.
    """
    if wanted.k < 1:
        raise ArgumentError(f"k = {wanted.k} must be at least 1")
    allow = encode_items(wanted.allow, names.answerable, on_unknown, "allow")
    deny = encode_items(wanted.deny, names.answerable, on_unknown, "deny")
    if wanted.category is not None:
        within = names.of_category(wanted.category)
        allow = within if allow is None else np.intersect1d(within, allow)
    scores = np.full((len(queries), wanted.k), -np.inf, dtype=np.float32)
    ids = np.full((len(queries), wanted.k), -1, dtype=np.int64)
    known = np.flatnonzero(np.diff(queries.offsets) > 0)
    for start in range(0, len(known), REQUESTS_PER_BATCH):
        rows = known[start : start + REQUESTS_PER_BATCH]
        first, last = queries.offsets[rows], queries.offsets[rows + 1]
        states, groups = interest_states(
            encoder,
            queries.items,
            queries.timestamps,
            first,
            last,
            wanted.interests,
            local_times=queries.local_times,
            at=None if queries.at is None else queries.at[rows],
            local_at=None if queries.local_at is None else queries.local_at[rows],
        )
        exclude = None
        biased = None if wanted.exclude_seen else biased_window(encoder, decoder, queries.items, first, last)
        if wanted.exclude_seen:
            seen_offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(last - first)))
            exclude = (queries.items[flat_ranges(first, last)], seen_offsets)
        elif biased is not None:
            exclude = (biased.ids, biased.offsets)
        filters: dict[str, Any] = {"exclude": exclude, "allow": allow, "deny": deny}
        if wanted.interests == 1:
            found = decoder.search(states, wanted.k, **filters)
        else:
            found = decoder.search_groups(states, groups, wanted.k, **filters)
        if biased is not None:
            found = with_window(found, biased, states, groups, decoder, wanted.k, allow=allow, deny=deny)
        scores[rows], ids[rows] = found.scores, found.ids
    unknown = np.diff(queries.offsets) == 0
    if unknown.any():
        warnings.warn(
            f"{int(unknown.sum())} request(s) have no known item: they get the most popular items",
            stacklevel=4,
        )
        there = None if decoder.live is None else decoder.live.snapshot().ids
        scores[unknown], ids[unknown] = _most_popular(names.store, wanted.k, allow, deny, there)
    return Answers(queries.labels, scores, ids)


def similar(weight: Tensor, names: Names, items: Iterable[Any], k: int) -> "polars.DataFrame":
    """Nearest items by cosine of item vectors, the item itself left out.

    Args:
        weight: (V, D) float32 item vectors.
        names: of the catalog.
        items: raw item ids.
        k: neighbours per item.

    Returns:
        Columns item_id, similar_item_id, score, rank, and title where there are titles.
    """
    import polars as pl

    rows = encode_items(items, names.items, "raise", "items")
    assert rows is not None
    index = ItemIndex.build(weight, kind="exact", metric="cosine", fingerprint="")
    itself = (rows, np.arange(len(rows) + 1, dtype=np.int64))
    found = index.search(weight[rows].numpy(), k, exclude=itself)
    request, place = np.nonzero(found.ids >= 0)
    neighbours = found.ids[request, place]
    columns: dict[str, Any] = {
        "item_id": names.items.decode(rows[request]),
        "similar_item_id": names.items.decode(neighbours).alias("similar_item_id"),
        "score": found.scores[request, place],
        "rank": (place + 1).astype(np.int32),
    }
    if names.titles is not None:
        columns["title"] = names.titles.gather(neighbours)
    return pl.DataFrame(columns)


def _most_popular(
    store: SequenceStore, k: int, allow: Array | None, deny: Array | None, there: Array | None
) -> tuple[Scores, Array]:
    counts = store.item_counts()
    candidate = np.ones(len(counts), dtype=bool)
    for only in (allow, there):
        if only is not None:
            # Items added since have no count to be popular by.
            candidate &= np.isin(np.arange(len(counts)), only)
    if deny is not None:
        candidate[deny[deny < len(counts)]] = False
    order = np.lexsort((np.arange(len(counts)), -counts))
    best = order[candidate[order]][:k]
    scores = np.full(k, -np.inf, dtype=np.float32)
    ids = np.full(k, -1, dtype=np.int64)
    scores[: len(best)] = counts[best] / max(int(counts.sum()), 1)
    ids[: len(best)] = best
    return scores, ids
