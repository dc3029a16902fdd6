"""From packed requests to ranked raw ids: encode, search, name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.answering.arguments import check_room, warn_caller, whole_number
from recsys.answering.interests import check_interests
from recsys.answering.names import Names
from recsys.answering.queries import Array, OnUnknown, Queries, encode_denied, encode_items
from recsys.answering.search import UserQueries, encode_queries, search_users
from recsys.decoding.decoder import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError
from recsys.forks import need_device

if TYPE_CHECKING:
    import polars

# Requests encoded and searched at once.
REQUESTS_PER_BATCH = 4096
# And fewer where so many answers are wanted that sorting them would take the memory.
ANSWERS_PER_BATCH = 2**24
SOURCES = ("model", "popular")
"""What a row of an answer comes from."""
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


class AnswerArrays(NamedTuple):
    """Answers as arrays; unpacks into ids and scores."""

    ids: npt.NDArray[np.object_]
    """(R, k) raw item ids, None past the last answer."""

    scores: Scores
    """(R, k) float32, -inf there."""


@dataclass(frozen=True, slots=True, eq=False)
class Recommendations:
    """Ranked answers to R requests.

    Attributes:
        queries: the requests.
        scores: (R, k) float32, best first, -inf past the last answer.
        ids: (R, k) int64 item indices, -1 there.
        popular: (R,) whether nothing was known of the request, so that it got the most popular items.
    """

    queries: Queries
    scores: Scores
    ids: Array
    popular: npt.NDArray[np.bool_]

    def frame(self, names: Names) -> "polars.DataFrame":
        """Columns user_id, item_id, score, rank, title where there are titles, and source."""
        import polars as pl

        request, place = np.nonzero(self.ids >= 0)
        rows = self.ids[request, place]
        # The column's type is the log's, so that an empty answer keeps it.
        kind = names.users.ids.dtype if self.queries.of_users else pl.Int64
        columns: dict[str, Any] = {
            "user_id": pl.Series("user_id", self.queries.labels, dtype=kind).gather(request),
            "item_id": names.answerable.decode(rows),
            "score": self.scores[request, place],
            "rank": (place + 1).astype(np.int32),
        }
        titles = names.titles_of(rows)
        if titles is not None:
            columns["title"] = titles
        columns["source"] = pl.Series(SOURCES).gather(self.popular[request].astype(np.int64))
        return pl.DataFrame(columns)

    def asked_at(self) -> dict[str, Any] | None:
        """When the first request is asked: unix seconds, and local time where known; None for no moment."""
        if self.queries.at is None or len(self.queries) == 0 or self.popular[0]:
            return None
        local = self.queries.local_at
        shown = None if local is None else datetime.fromtimestamp(int(local[0]), UTC).replace(tzinfo=None)
        return {"unix": int(self.queries.at[0]), "local": None if shown is None else shown.isoformat()}

    def arrays(self, names: Names) -> AnswerArrays:
        """Raw ids and scores."""
        raw = np.full(self.ids.shape, None, dtype=object)
        found = self.ids >= 0
        raw[found] = names.answerable.decode(self.ids[found]).to_list()
        return AnswerArrays(raw, self.scores)


def answer(
    encoder: SequenceEncoder,
    decoder: Decoder,
    names: Names,
    queries: Queries,
    options: QueryOptions,
    on_unknown: OnUnknown,
    *,
    encode: Callable[[Queries, Array], UserQueries] | None = None,
) -> Recommendations:
    """Rank the catalog for every request, in batches.

    A request of which nothing is known gets the most popular items, with their share of the training
    events as score; the answer and a warning say so.

    Args:
        encoder: in evaluation mode.
        decoder: its index.
        names: of the log.
        queries: R requests.
        options: answers and filters.
        on_unknown: what becomes of unknown ids among `allow` and `deny`.
        encode: gives the states of some of the requests; None encodes their histories.

    Raises:
        ArgumentError: k < 1.
        UnknownIdError: an allowed or denied id is unknown and ``on_unknown="raise"``.
    """
    need_device(encoder.device.type)
    k = min(whole_number(options.k, "k"), decoder.n_answerable)
    if not isinstance(options.exclude_seen, bool | np.bool_):
        raise ArgumentError(f"exclude_seen={options.exclude_seen!r} must be True or False")
    check_room(len(queries), k)
    check_interests(options.interests)
    if encode is None:
        encode = partial(encode_queries, encoder, interests=options.interests)
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
        asked = encode(queries, rows)
        found = search_users(
            encoder, decoder, asked, k, exclude_seen=options.exclude_seen, allow=allow, deny=deny
        )
        scores[rows], ids[rows] = found.scores, found.ids
    unknown = np.diff(queries.offsets) == 0
    if unknown.any():
        warn_caller(f"{int(unknown.sum())} request(s) have no known item: they get the most popular items")
        there = None if decoder.live is None else decoder.live.snapshot().ids
        scores[unknown], ids[unknown] = names.popular.best(k, allow, deny, there)
    return Recommendations(queries, scores, ids, unknown)
