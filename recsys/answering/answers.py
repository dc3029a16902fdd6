"""From packed requests to ranked raw ids: encode, search, name."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recsys.answering.arguments import check_room, whole_number
from recsys.answering.interests import interest_states
from recsys.answering.names import Names
from recsys.answering.queries import Array, OnUnknown, Queries, encode_denied, encode_items
from recsys.answering.window_answers import biased_window, with_window
from recsys.datasets.prepared.store import SequenceStore
from recsys.decoding.decoder import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.forks import need_device
from recsys.jagged import flat_ranges
from recsys.retrieval.item_index import ItemIndex

if TYPE_CHECKING:
    import polars

# Requests encoded and searched at once.
REQUESTS_PER_BATCH = 4096
# And fewer where so many answers are wanted that sorting them would take the memory.
ANSWERS_PER_BATCH = 2**24
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryOptions:
    """What may be answered: k items per request, under filters of raw ids."""

    k: int
    exclude_seen: bool
    allow: Iterable[Any] | None
    deny: Iterable[Any] | None
    category: str | Iterable[str] | None = None
    interests: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Recommendations:
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


def answer(
    encoder: SequenceEncoder,
    decoder: Decoder,
    names: Names,
    queries: Queries,
    options: QueryOptions,
    on_unknown: OnUnknown,
) -> Recommendations:
    """Rank the catalog for every request, in batches.

    A request of which nothing is known gets the most popular items, with their share of the training
    events as score, and a warning says so.

    Raises:
        ArgumentError: k < 1.
        UnknownIdError: an allowed or denied id is unknown and ``on_unknown="raise"``.
    """
    need_device(encoder.device.type)
    k = min(whole_number(options.k, "k"), decoder.n_answerable)
    check_room(len(queries), k)
    allow = encode_items(options.allow, names.answerable, on_unknown, "allow")
    deny = encode_denied(options.deny, names.answerable, on_unknown)
    if options.category is not None:
        within = names.of_category(options.category)
        allow = within if allow is None else np.intersect1d(within, allow)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    known = np.flatnonzero(np.diff(queries.offsets) > 0)
    batch = max(1, min(REQUESTS_PER_BATCH, ANSWERS_PER_BATCH // k))
    for start in range(0, len(known), batch):
        rows = known[start : start + batch]
        first, last = queries.offsets[rows], queries.offsets[rows + 1]
        states, groups = interest_states(
            encoder,
            queries.items,
            queries.timestamps,
            first,
            last,
            options.interests,
            local_times=queries.local_times,
            at=None if queries.at is None else queries.at[rows],
            local_at=None if queries.local_at is None else queries.local_at[rows],
        )
        exclude = None
        biased = None if options.exclude_seen else biased_window(encoder, decoder, queries.items, first, last)
        if options.exclude_seen:
            seen_offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(last - first)))
            exclude = (queries.items[flat_ranges(first, last)], seen_offsets)
        elif biased is not None:
            exclude = (biased.ids, biased.offsets)
        filters: dict[str, Any] = {"exclude": exclude, "allow": allow, "deny": deny}
        if options.interests == 1:
            found = decoder.search(states, k, **filters)
        else:
            found = decoder.search_groups(states, groups, k, **filters)
        if biased is not None:
            found = with_window(found, biased, states, groups, decoder, k, allow=allow, deny=deny)
        scores[rows], ids[rows] = found.scores, found.ids
    unknown = np.diff(queries.offsets) == 0
    if unknown.any():
        warnings.warn(
            f"{int(unknown.sum())} request(s) have no known item: they get the most popular items",
            stacklevel=4,
        )
        there = None if decoder.live is None else decoder.live.snapshot().ids
        scores[unknown], ids[unknown] = _most_popular(names.store, k, allow, deny, there)
    return Recommendations(queries.labels, scores, ids)


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
