"""Requests with filters of their own, answered together: `read`, `encode` what is missing, `search`.

Each answer is what `Recommender.recommend` gives for the request alone: the same bits if it is alone, the
same items with scores within 1e-5 among others, since matrix products round by their shapes. An approximate
index may find more of the best items among others than alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.answering.arguments import check_room
from recsys.answering.each_request import Reading, Request, read_requests
from recsys.answering.names import Names
from recsys.answering.queries import Array
from recsys.answering.search import UserQueries, encode_queries, search_users, window_times
from recsys.answering.user_events import packed
from recsys.decoding.decoder import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError, RecsysError
from recsys.forks import need_device
from recsys.kernels.shared.backends import prefer_backend

__all__ = ["Answer", "Answerer", "Reading", "Request"]

States = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The items that answer a request, best first; k of them whenever k candidates exist.

    Attributes:
        items: (n,) int64 item indices.
        ids: their n raw ids.
        scores: (n,) float32; shares of the training events where `popular`.
        titles: of each, None for an item without one; None where the catalog has no titles.
        popular: whether nothing was known of the request, so that these are the most popular items.
        reading: what was answered.
    """

    items: Array
    ids: list[Any]
    scores: States
    titles: list[str | None] | None
    popular: bool
    reading: Reading


class Answerer:
    """Answers requests of one model; made by `Recommender.answerer`.

    It keeps nothing between calls but a table of text ids. A service calls :meth:`read`, then :meth:`encode`
    for those whose query vectors it has not kept by :meth:`Reading.state_key`, then :meth:`search`. Nothing
    here warns. Safe to share by threads.

    Args:
        encoder: in evaluation mode.
        decoder: its index.
        names: of the log.
        backend: kernels to run on.
    """

    def __init__(
        self, encoder: SequenceEncoder, decoder: Decoder, names: Names, *, backend: str = "auto"
    ) -> None:
        self._encoder, self._decoder, self._names, self._backend = encoder, decoder, names, backend
        names.items.keep_table()

    def answer(self, requests: Sequence[Request]) -> list[Answer | RecsysError]:
        """Read, encode and search; each answer, or why there is none, in its place."""
        found: list[Any] = list(self.read(requests))
        places = [place for place, own in enumerate(found) if isinstance(own, Reading)]
        readings = [found[place] for place in places]
        for place, answer in zip(places, self.search(readings, self.encode(readings)), strict=True):
            found[place] = answer
        return found

    def read(self, requests: Sequence[Request]) -> list[Reading | RecsysError]:
        """Look up raw ids; a request that cannot be answered has its error in its place."""
        return read_requests(self._encoder, self._names, requests)

    def encode(self, readings: Sequence[Reading]) -> list[States]:
        """Query vectors of R requests, those that want the same number of interests as one batch.

        Returns:
            (s, d) float32 of each, s up to its `interests`; s = 0 where nothing is known of it.
        """
        need_device(self._encoder.device.type)
        found: list[States] = [np.zeros((0, self._encoder.config.d_model), dtype=np.float32)] * len(readings)
        for interests in sorted({own.interests for own in readings}):
            places = [p for p, own in enumerate(readings) if own.interests == interests and not own.empty]
            if not places:
                continue
            with prefer_backend(self._backend):
                queries = self._queries([readings[place] for place in places], interests)
            for place, first, last in zip(places, queries.groups, queries.groups[1:], strict=False):
                found[place] = queries.states[first:last]
        return found

    def search(self, readings: Sequence[Reading], states: Sequence[States]) -> list[Answer]:
        """Find the items of R requests: one search for all whose filters are equal, but for what is left out.

        Args:
            readings: R of them.
            states: (s, d) query vectors of each, from :meth:`encode` now or earlier.

        Raises:
            ArgumentError: vectors are missing of a request of which something is known.
        """
        need_device(self._encoder.device.type)
        found: list[tuple[States, Array] | None] = [None] * len(readings)
        groups: dict[Any, list[int]] = {}
        for place, own in enumerate(readings):
            if own.empty:
                found[place] = self._popular(own)
            elif len(states[place]) == 0:
                raise ArgumentError(f"states of request {place} are missing: encode() gives them")
            else:
                groups.setdefault(self._filters(own), []).append(place)
        with prefer_backend(self._backend):
            for places in groups.values():
                together = [readings[place] for place in places]
                scores, ids = self._search(together, [states[place] for place in places])
                for place, own, own_scores, own_ids in zip(places, together, scores, ids, strict=True):
                    found[place] = own_scores[: own.k], own_ids[: own.k]
        return self._named(readings, [own for own in found if own is not None])

    def _queries(self, readings: list[Reading], interests: int) -> UserQueries:
        asked = packed([own.events for own in readings], list(range(len(readings))), of_users=False)
        at = None if readings[0].at is None else np.array([own.at for own in readings], dtype=np.int64)
        local = readings[0].local_at
        local_at = None if local is None else np.array([own.local_at for own in readings], dtype=np.int64)
        known = [own.context for own in readings if own.context is not None]
        context = np.concatenate(known) if len(known) == len(readings) else None
        asked = replace(asked.at_moments(at, local_at), context=context)
        return encode_queries(self._encoder, asked, np.arange(len(readings), dtype=np.int64), interests)

    def _times(self, own: Reading) -> tuple[Array | None, Array | None]:
        """Local times of a reading's events and of itself, where the repeat bias reads them."""
        asked = packed([own.events], [0], of_users=False)
        if own.local_at is not None:
            asked = asked.at_moments(None, np.array([own.local_at], dtype=np.int64))
        return window_times(self._encoder, asked, np.zeros(1, dtype=np.int64))

    def _filters(self, own: Reading) -> tuple[Any, ...]:
        """What requests have in common that are searched together."""
        # How deep an approximate index looks depends on k.
        k = None if self._decoder.index.exact else own.k
        deny = None if self._excludes(own) else own.deny
        filters = (None if ids is None else ids.tobytes() for ids in (own.allow, deny))
        return k, own.exclude_seen, *filters

    def _excludes(self, own: Reading) -> bool:
        """Whether denied items are left out as seen ones are, of each request its own."""
        return own.exclude_seen and self._decoder.index.exact and self._decoder.local is None

    def _search(self, readings: list[Reading], states: list[States]) -> tuple[States, Array]:
        k = min(max(own.k for own in readings), self._decoder.n_answerable)
        check_room(len(readings), k)
        first, nothing = readings[0], np.zeros(0, dtype=np.int64)
        excludes = self._excludes(first)
        parts = []
        for own, own_states in zip(readings, states, strict=True):
            denied = own.deny if excludes and own.deny is not None else nothing
            items = np.concatenate([own.events.items, denied])
            groups = np.array([0, len(own_states)], dtype=np.int64)
            offsets = np.array([0, len(items)], dtype=np.int64)
            # What the histories hold is left out, or no denied items stand behind it.
            times = (None, None) if first.exclude_seen else self._times(own)
            parts.append(UserQueries(own_states, groups, items, offsets, *times))
        found = search_users(
            self._encoder,
            self._decoder,
            UserQueries.joined(parts),
            k,
            exclude_seen=first.exclude_seen,
            allow=first.allow,
            deny=None if excludes else first.deny,
        )
        return found.scores, found.ids

    def _popular(self, own: Reading) -> tuple[States, Array]:
        live = self._decoder.live
        there = None if live is None else live.snapshot().ids
        k = min(own.k, self._decoder.n_answerable)
        return self._names.popular.best(k, own.allow, own.deny, there)

    def _named(self, readings: Sequence[Reading], found: list[tuple[States, Array]]) -> list[Answer]:
        """With raw ids and titles, looked up together, and without places that were not filled."""
        rows = [ids[ids >= 0] for _, ids in found]
        flat = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
        ids = self._names.answerable.decode(flat).to_list()
        titles = self._names.titles_of(flat)
        shown = None if titles is None else titles.to_list()
        answers, start = [], 0
        for own, own_rows, (scores, _) in zip(readings, rows, found, strict=True):
            end = start + len(own_rows)
            answers.append(
                Answer(
                    own_rows,
                    ids[start:end],
                    scores[: len(own_rows)],
                    None if shown is None else shown[start:end],
                    own.empty,
                    own,
                )
            )
            start = end
        return answers
