"""From users' states to items: one search for requests, kept states and offline scoring.

Wherever a state comes from, the same things are said of its user: what was seen, and what the encoder has
learned to add to the scores of the window's items. A search of the index alone knows neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.answering.event_columns import input_codes
from recsys.answering.interests import interest_states
from recsys.answering.queries import Array, Queries
from recsys.answering.window_answers import biased_window, with_window
from recsys.decoding.decoder import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.jagged import flat_ranges
from recsys.retrieval.item_index import NeighborArrays


@dataclass(frozen=True, slots=True, eq=False)
class UserQueries:
    """What the catalog is searched by for R users.

    Attributes:
        states: (s, d) float32 query vectors, a user's together.
        groups: (R+1,) int64 offsets of the users' vectors; nobody has none.
        items: (N,) int64 indices of the items of all histories, oldest first; nobody has none.
        offsets: (R+1,) int64 offsets of the users' items.
        local_times: (N,) int64 local seconds of all events, for an encoder whose repeat bias reads the clock.
        asked: (R,) int64 local seconds of the requests, likewise.
    """

    states: npt.NDArray[np.float32]
    groups: Array
    items: Array
    offsets: Array
    local_times: Array | None = None
    asked: Array | None = None

    @classmethod
    def joined(cls, parts: "Sequence[UserQueries]") -> "UserQueries":
        """Those of several, one after the other; at least one."""
        return cls(
            np.concatenate([part.states for part in parts]),
            _rising([np.diff(part.groups) for part in parts]),
            np.concatenate([part.items for part in parts]),
            _rising([np.diff(part.offsets) for part in parts]),
            _all([part.local_times for part in parts]),
            _all([part.asked for part in parts]),
        )

    def apart(self) -> "list[UserQueries]":
        """Those of each user."""
        return [
            UserQueries(
                self.states[first:last],
                np.array([0, last - first], dtype=np.int64),
                self.items[start:end],
                np.array([0, end - start], dtype=np.int64),
                None if self.local_times is None else self.local_times[start:end],
                None if self.asked is None else self.asked[row : row + 1],
            )
            for row, (first, last, start, end) in enumerate(
                zip(self.groups, self.groups[1:], self.offsets, self.offsets[1:], strict=False)
            )
        ]


def encode_queries(
    encoder: SequenceEncoder, queries: Queries, rows: Array, interests: int = 1
) -> UserQueries:
    """Encode histories.

    Args:
        encoder: in evaluation mode.
        queries: of R requests.
        rows: (r,) those to encode; none has an empty history.
        interests: query vectors of each; see :func:`recsys.answering.interests.interest_states`.
    """
    first, last = queries.offsets[rows], queries.offsets[rows + 1]
    codes = input_codes(encoder, queries.event_codes, queries.context, queries.offsets)
    states, groups = interest_states(
        encoder,
        queries.items,
        queries.timestamps,
        first,
        last,
        interests,
        local_times=queries.local_times,
        at=None if queries.at is None else queries.at[rows],
        local_at=None if queries.local_at is None else queries.local_at[rows],
        event_codes=codes,
        context=None if queries.context is None else queries.context[rows],
    )
    events = flat_ranges(first, last)
    local, asked = window_times(encoder, queries, rows)
    return UserQueries(states, groups, queries.items[events], _rising([last - first]), local, asked)


def window_times(
    encoder: SequenceEncoder, queries: Queries, rows: Array
) -> tuple[Array | None, Array | None]:
    """What a repeat bias that reads the clock must know of requests: `local_times` and `asked`.

    Args:
        encoder: of the histories.
        queries: of R requests.
        rows: (r,) those that are meant; none has an empty history.

    Returns:
        (n,) local seconds of their events and (r,) of the requests, which without a moment of their own are
        asked at their last events; None twice where nothing reads them.
    """
    local = queries.local_times
    if not encoder.bias_reads_clock or local is None:
        return None, None
    first, last = queries.offsets[rows], queries.offsets[rows + 1]
    asked = local[last - 1] if queries.local_at is None else queries.local_at[rows]
    return local[flat_ranges(first, last)], asked


def search_users(
    encoder: SequenceEncoder,
    decoder: Decoder,
    queries: UserQueries,
    k: int,
    *,
    exclude_seen: bool = True,
    allow: Array | None = None,
    deny: Array | None = None,
) -> NeighborArrays:
    """Find the k best items of each user, as `Recommender.recommend` answers.

    Args:
        encoder: that the states are of; its repeat bias is added where seen items may be answered.
        decoder: `Recommender.decoder_`.
        queries: of R users.
        k: answers per user.
        exclude_seen: leave out what the histories hold.
        allow: (A,) item indices that may be returned at all.
        deny: (D,) that never are.

    Returns:
        (R, k) float32 scores and int64 item indices, -inf and -1 past the last answer.

    Raises:
        ArgumentError: as `ItemIndex.search`; or the encoder's repeat bias reads the clock and the queries
            have no times.
    """
    # One catalog from end to end, whatever comes and goes meanwhile.
    version = None if decoder.live is None else decoder.live.snapshot()
    exclude = (queries.items, queries.offsets) if exclude_seen else None
    window = None
    if not exclude_seen:
        starts, ends = queries.offsets[:-1], queries.offsets[1:]
        times = queries.local_times, queries.asked
        window = biased_window(encoder, decoder, queries.items, starts, ends, *times)
        if window is not None:
            exclude = (window.ids, window.offsets)
    filters: dict[str, Any] = {"exclude": exclude, "allow": allow, "deny": deny, "version": version}
    if len(queries.states) == len(queries.groups) - 1:
        found = decoder.search(queries.states, k, **filters)
    else:
        found = decoder.search_groups(queries.states, queries.groups, k, **filters)
    if window is None:
        return found
    return with_window(
        found, window, queries.states, queries.groups, decoder, k, allow=allow, deny=deny, version=version
    )


def _rising(lengths: Sequence[Array]) -> Array:
    """Offsets of rows of these lengths."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths), dtype=np.int64)))


def _all(parts: Sequence[Array | None]) -> Array | None:
    """The parts one after the other; None where one is missing."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
