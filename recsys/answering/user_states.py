"""States of users between requests: one more event costs one step, not the encoding of the whole history."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from recsys.answering.arguments import whole_number
from recsys.answering.search import UserQueries
from recsys.answering.streams import Array, History, Kept, States, Streams, state_bytes
from recsys.encoders.base import NO_CLOCK_TO_READ, SequenceEncoder
from recsys.errors import ArgumentError
from recsys.forks import Lock

BYTES_KEPT = 256 * 2**20
_ONE = np.array([0, 1], dtype=np.int64)


class UserStates:
    """A bounded cache of streaming states, by user.

    The least recently used states go first; the window of a user who comes back is encoded anew, all events
    at once where the encoder :attr:`~recsys.encoders.base.SequenceEncoder.prefills`. Safe to share by
    threads: they take turns, since a step uses up the state that it starts from.

    Args:
        encoder: in evaluation mode; its `step` is what makes states.
        history_of: gives a user's events so far, oldest first, *without* the event being appended, as item
            indices and unix seconds.
        bytes_kept: most bytes of states kept.
        time_zone: of what comes in, IANA name or ``+HH:MM``, for encoders with a clock, and of histories that
            come without offsets; None goes on with a history's last offset.

    Raises:
        ArgumentError: bytes_kept < 0.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        history_of: Callable[[Hashable], History],
        *,
        bytes_kept: int = BYTES_KEPT,
        time_zone: str | None = None,
    ) -> None:
        bytes_kept = whole_number(bytes_kept, "bytes_kept", least=0)
        self._encoder = encoder
        self._streams = Streams(encoder, time_zone)
        self._history_of = history_of
        self._bytes_kept = bytes_kept
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._lock = Lock()
        self.bytes = 0
        """Bytes of the states that are kept."""
        self.hits = 0
        """Calls that found the user's state."""
        self.misses = 0
        """Calls that read the user's history."""

    def __getstate__(self) -> dict[str, Any]:
        raise ArgumentError("kept states are not pickled: each process keeps its own")

    def __len__(self) -> int:
        return len(self._kept)

    def append(
        self,
        user: Hashable,
        item: int,
        timestamp: int | None = None,
        *,
        at: int | None = None,
        codes: Array | None = None,
    ) -> States:
        """Take one more event of a user.

        Args:
            user: who.
            item: index in the catalog.
            timestamp: unix seconds, for encoders that read the time.
            at: unix seconds at which the state is asked for, read by the interest clock; None is
                `timestamp`.
            codes: (E,) int64 codes of what came with the event; None where nothing is known.

        Returns:
            (d,) float32, what `user_state` gives for the history with this event.

        Raises:
            ArgumentError: the item is not in the catalog, or `at` is given to an encoder without the
                interest clock.
        """
        self._check_at(at)
        with self._lock:
            after = self._append([user], [item], [timestamp], [codes])
            (state,) = self._streams.read(after, [at], [None])
            return np.asarray(state)

    def append_many(
        self,
        users: Sequence[Hashable],
        items: Sequence[int],
        timestamps: Sequence[int | None] | None = None,
        *,
        codes: Sequence[Array | None] | None = None,
    ) -> States:
        """Take one more event of each of several users; all whose states are kept take one step together.

        Args:
            users: n of them, none twice.
            items: index in the catalog, one each.
            timestamps: unix seconds, one each, for encoders that read the time.
            codes: as of :meth:`append`, one each.

        Returns:
            (n, d) float32, what :meth:`append` gives of each.

        Raises:
            ArgumentError: as `append`, a user is named twice, or not one event for each.
        """
        stamps: list[int | None] = [None] * len(users) if timestamps is None else list(timestamps)
        known: list[Array | None] = [None] * len(users) if codes is None else list(codes)
        if len(set(users)) != len(users):
            raise ArgumentError("a user is named twice: append_many() takes one event of each")
        if not len(users) == len(items) == len(stamps) == len(known):
            raise ArgumentError(f"{len(users)} users, {len(items)} items, {len(stamps)} times: one for each")
        with self._lock:
            nothing: list[int | None] = [None] * len(users)
            after = self._append(list(users), list(items), stamps, known)
            return self._streams.read(after, nothing, nothing)

    def state(self, user: Hashable, *, at: int | None = None) -> States | None:
        """The state after a user's last event, at any hour without encoding anything again.

        Args:
            user: who.
            at: unix seconds at which it is asked for, read by the interest clock; None is the time of the
                last event.

        Returns:
            (d,) float32; None for a user without events.

        Raises:
            ArgumentError: `at` is given to an encoder without the interest clock.
        """
        found = self.query(user, at=at)
        return None if found is None else found.states[0]

    def query(
        self, user: Hashable, *, at: int | None = None, local_at: int | None = None
    ) -> UserQueries | None:
        """What the catalog is searched by for a user, with what was seen; see `search_users`.

        Args:
            user: who.
            at: unix seconds at which it is asked for, read by the interest clock and by a repeat bias that
                reads the clock; None is the time of the last event.
            local_at: or local seconds.

        Returns:
            The query of one user; None for a user without events.

        Raises:
            ArgumentError: `at` is given to an encoder that reads no clock.
        """
        return self.query_many([user], at=[at], local_at=[local_at])[0]

    def query_many(
        self,
        users: Sequence[Hashable],
        *,
        at: Sequence[int | None] | None = None,
        local_at: Sequence[int | None] | None = None,
        context: Sequence[Array | None] | None = None,
    ) -> list[UserQueries | None]:
        """The same for several users: those whose states are not kept are encoded together.

        Args:
            users: n of them.
            at: as of :meth:`query`, one each.
            local_at: likewise.
            context: (R + C,) int64 codes of what is known of each request and behind them of its user, who
                has to be the history's; None of one of which nothing else is known.
        """
        moments = [None] * len(users) if at is None else list(at)
        local = [None] * len(users) if local_at is None else list(local_at)
        for moment in (*moments, *local):
            self._check_at(moment)
        with self._lock:
            found: dict[Hashable, Kept | None] = {}
            missing: dict[Hashable, History] = {}
            for user in users:
                kept = self._kept.get(user)
                if kept is not None:
                    self.hits += 1
                    self._kept.move_to_end(user)
                    found[user] = kept
                elif user not in missing:
                    self.misses += 1
                    missing[user] = self._history_of(user)
            made = self._streams.begin(list(missing.values()))
            for user, kept in zip(missing, made, strict=True):
                found[user] = kept
                if kept is not None:
                    self._put(user, kept)
            known = [place for place, user in enumerate(users) if found[user] is not None]
            kept_ones = [kept for kept in (found[users[place]] for place in known) if kept is not None]
            told = None if context is None else [context[p] for p in known]
            states = self._streams.read(
                kept_ones, [moments[p] for p in known], [local[p] for p in known], told
            )
        queries: list[UserQueries | None] = [None] * len(users)
        for row, (place, kept) in enumerate(zip(known, kept_ones, strict=True)):
            offsets = np.array([0, len(kept.items)], dtype=np.int64)
            asked = self._streams.asked(kept, moments[place], local[place])
            queries[place] = UserQueries(
                states[row : row + 1], _ONE, kept.items, offsets, kept.local_times, asked
            )
        return queries

    def forget(self, user: Hashable) -> None:
        """Drop a user's state, e.g. because the history was changed elsewhere."""
        with self._lock:
            self._drop(user)

    def clear(self) -> None:
        """Drop all states, e.g. because items are read by other vectors now."""
        with self._lock:
            self._kept.clear()
            self.bytes = 0

    def _append(
        self,
        users: list[Hashable],
        items: list[int],
        timestamps: list[int | None],
        codes: list[Array | None],
    ) -> list[Kept]:
        """What is kept of users after an event of each; should this fail, all are read anew."""
        for item in items:
            self._streams.check(item)
        kept = [self._kept.get(user) for user in users]
        stepping = [place for place, own in enumerate(kept) if own is not None]
        anew = [place for place, own in enumerate(kept) if own is None]
        self.hits += len(stepping)
        self.misses += len(anew)
        longer = [
            self._streams.longer(
                self._history_of(users[place]), items[place], timestamps[place], codes[place]
            )
            for place in anew
        ]
        before = [own for own in kept if own is not None]
        for place in stepping:
            self._drop(users[place])
        stepped = self._streams.step(
            before,
            [items[p] for p in stepping],
            [timestamps[p] for p in stepping],
            [codes[p] for p in stepping],
        )
        made = self._streams.begin(longer)
        for place, own in zip([*stepping, *anew], [*stepped, *made], strict=True):
            kept[place] = own
        after = [own for own in kept if own is not None]
        for user, own in zip(users, after, strict=True):
            self._put(user, own)
        return after

    def _check_at(self, at: int | None) -> None:
        encoder = self._encoder
        # A bias that reads the clock is added beside the state, which has to be the same at every hour.
        beside = encoder.bias_reads_clock and not encoder.encodes_request_time
        if at is not None and encoder.clock is None and not beside:
            raise ArgumentError(NO_CLOCK_TO_READ)

    def _put(self, user: Hashable, kept: Kept) -> None:
        answer = kept.answer
        own = answer.nbytes if isinstance(answer, Tensor) else answer.hidden.nbytes + answer.times.nbytes
        times = 0 if kept.local_times is None else kept.local_times.nbytes
        kept.bytes = state_bytes(kept.state) + own + kept.items.nbytes + times
        self._drop(user)
        self._kept[user] = kept
        self.bytes += kept.bytes
        while self.bytes > self._bytes_kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, user: Hashable) -> None:
        kept = self._kept.pop(user, None)
        if kept is not None:
            self.bytes -= kept.bytes
