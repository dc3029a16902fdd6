"""Users whose events come in one by one: raw ids in, the answers of `Recommender.recommend` out."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.answering.answers import QueryOptions, answer
from recsys.answering.arguments import id_list, short
from recsys.answering.event_columns import codes_of_context, codes_of_event, names_users
from recsys.answering.keywords import hinted
from recsys.answering.names import Names
from recsys.answering.queries import Array, Queries
from recsys.answering.request_times import parse_moment, read_moment
from recsys.answering.requests import asked as asked_at
from recsys.answering.requests import zone_of
from recsys.answering.search import UserQueries, encode_queries
from recsys.answering.user_events import UserEvents, log_events, packed
from recsys.answering.user_states import BYTES_KEPT, UserStates
from recsys.datasets.times.time_zones import local_to_unix, zone_column
from recsys.decoding.decoder import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError, UnknownIdError
from recsys.forks import Lock
from recsys.kernels.shared.backends import prefer_backend

if TYPE_CHECKING:
    import polars


_Key = int | tuple[str, Any]


@dataclass(slots=True)
class _Since:
    """What came in of a user since the log."""

    items: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    codes: list[Array | None] = field(default_factory=list)


class LiveUsers:
    """Users of the log, and new ones, whose histories grow; made by `Recommender.live_users`.

    An answer is what `Recommender.recommend` would give had the log held the events that were appended. A
    user's state is kept, so that one more event costs one step; where a history has outgrown the encoder's
    window, whose first events a kept state would remember, or is asked at a moment that a kept state
    cannot be read at, the window is encoded instead. Safe to share by threads.

    What was appended is held in memory, 16 bytes an event and 8 for each of its columns, and goes with this
    object: a service writes events to a log of its own, and appends those that the run does not know when it
    starts.

    Args:
        encoder: in evaluation mode.
        decoder_of: gives the index to search, also after it was built anew.
        names: of the log.
        bytes_kept: most bytes of states kept; the least recently used go first.
        time_zone: of the users, IANA name or ``+HH:MM``; None is the log's, or each user's own.
        backend: kernels to run on.

    Raises:
        ArgumentError: bytes_kept < 0, or an unknown zone.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        decoder_of: Callable[[], Decoder],
        names: Names,
        *,
        bytes_kept: int = BYTES_KEPT,
        time_zone: str | None = None,
        backend: str = "auto",
    ) -> None:
        zone = zone_of(names.store, time_zone)
        self._zone = zone if zone_column(zone) is None else None
        self._encoder, self._decoder_of, self._names = encoder, decoder_of, names
        self._backend = backend
        self._since: dict[Hashable, _Since] = {}
        self._renewed = names.answerable.renewed
        self._lock = Lock(again=True)
        self.states = UserStates(encoder, self._history, bytes_kept=bytes_kept, time_zone=self._zone)
        """The states that are kept."""

    def __getstate__(self) -> dict[str, Any]:
        raise ArgumentError("live users are not pickled: make them in each process by live_users()")

    @hinted
    def append(
        self, user: Any, item: Any, timestamp: Any = None, *, columns: Mapping[str, Any] | None = None
    ) -> None:
        """Take one more event of a user.

        Args:
            user: raw id, of the log or a new one.
            item: raw id of an item of the log, or of one added with its features.
            timestamp: unix seconds, ISO text or a datetime, where the log has times; one without an offset is
                local time.
            columns: by an event column's name what came with the event, for a model that reads it; a value
                that training did not know is missing, with a warning.

        Raises:
            UnknownIdError: the item is neither in the log nor added with its features.
            ArgumentError: the time is missing, cannot be read, or lies before the user's last event;
                or the model reads no such column.
        """
        codes = codes_of_event(self._encoder, self._names.store, columns)
        (row,) = self._names.readable.encode([item]).tolist()
        if row < 0:
            raise UnknownIdError(
                f"unknown item {short(item)}: not in the training log; a history cannot hold it"
            )
        with self._lock:
            self._follow()
            key = self._key(user)
            items, times, offsets = self._history(key)[:3]
            when = self._timestamp(timestamp, user, times, offsets)
            if self._exact(len(items) + 1):
                with prefer_backend(self._backend):
                    self.states.append(key, row, when, codes=codes)
            else:
                self.states.forget(key)
            own = self._since.setdefault(key, _Since())
            own.items.append(row)
            own.codes.append(codes)
            if when is not None:
                own.times.append(when)

    @hinted
    def recommend(
        self,
        users: Iterable[Any],
        *,
        k: int = 10,
        at: Any = None,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        category: str | Iterable[str] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> "polars.DataFrame":
        """What comes next for some users; arguments and frame as of `Recommender.recommend`.

        What the context says of users takes the place of what the log knows of them; their windows are then
        encoded anew. A user of whom nothing is known gets the most popular items.
        """
        wanted = QueryOptions(k=k, exclude_seen=exclude_seen, allow=allow, deny=deny, category=category)
        asked = id_list(users, "users")
        with self._lock:
            self._follow()
            keys = [self._key(user) for user in asked]
            queries = self._queries(keys)
            encoder = self._encoder
            known = codes_of_context(
                encoder, self._names.store, context, len(queries), users=queries.user_codes
            )
            queries = replace(asked_at(encoder, queries, at, self._zone), context=known)
            kept_states = at is None or (encoder.clock is not None and not encoder.encodes_request_time)
            kept_states = kept_states and not names_users(encoder, context)

            def encode(queries: Queries, rows: Array) -> UserQueries:
                return self._encode(queries, rows, keys, kept_states)

            with prefer_backend(self._backend):
                found = answer(
                    self._encoder, self._decoder_of(), self._names, queries, wanted, "raise", encode=encode
                )
        return found.frame(self._names)

    def _encode(self, queries: Queries, rows: Array, keys: Sequence[_Key], kept_states: bool) -> UserQueries:
        """What the catalog is searched by for some of the requests: kept states, or windows encoded anew."""
        lengths = np.diff(queries.offsets)[rows]
        stepped = (lengths <= self._encoder.history_length) & kept_states
        found: dict[int, UserQueries] = {}
        kept = rows[stepped].tolist()
        clocked = self._encoder.clock is not None and queries.local_at is not None
        local = [
            int(queries.local_at[row]) if clocked and queries.local_at is not None else None for row in kept
        ]
        told = None if queries.context is None else list(queries.context[kept])
        states = self.states.query_many([keys[row] for row in kept], local_at=local, context=told)
        for row, own in zip(kept, states, strict=True):
            assert own is not None
            found[row] = own
        anew = rows[~stepped]
        if len(anew):
            found.update(
                zip(anew.tolist(), encode_queries(self._encoder, queries, anew).apart(), strict=True)
            )
        return UserQueries.joined([found[row] for row in rows.tolist()])

    def _follow(self) -> None:
        """Drop states that may have read an added item by features that it has no longer."""
        if self._renewed != self._names.answerable.renewed:
            self._renewed = self._names.answerable.renewed
            self.states.clear()

    def _exact(self, length: int) -> bool:
        """Whether stepping through so many events gives what encoding the window gives."""
        return length <= self._encoder.history_length

    def _key(self, user: Any) -> _Key:
        """A user's row in the log, or a new user's id, apart from rows."""
        (row,) = self._names.users.encode([user]).tolist()
        if row >= 0:
            return int(row)
        if not self._names.users.is_int:
            return ("new", str(user))
        try:
            return ("new", int(str(user)))
        except ValueError:
            raise ArgumentError(f"user {user!r} is not a whole number, as the log's users are") from None

    def _history(self, key: Hashable) -> UserEvents:
        """Everything known of a user."""
        own = self._since.get(key, _Since())
        log = log_events(self._names.store, key if isinstance(key, int) else None)
        items, times = np.array(own.items, dtype=np.int64), np.array(own.times, dtype=np.int64)
        codes = None
        if log.codes is not None:
            nothing = np.zeros(log.codes.shape[1], dtype=np.int64)
            known = [nothing if one is None else one for one in own.codes]
            codes = np.array(known, dtype=np.int64).reshape(-1, len(nothing))
        return log.followed_by(items, times, self._zone, codes)

    def _timestamp(self, value: Any, user: Any, times: Array | None, offsets: Array | None) -> int | None:
        """Unix seconds of an event, not before the user's last."""
        if times is None:
            if value is not None:
                raise ArgumentError(f"timestamp={short(value)}: the log carries order alone; leave it out")
            return None
        if value is None:
            raise ArgumentError(f"an event of user {user!r} has no time: pass timestamp=")
        moment = parse_moment(value) if isinstance(value, str) else value
        seconds, naive = read_moment(moment, f"timestamp={short(value)}")
        if naive and self._zone is not None:
            seconds = int(local_to_unix(np.array([seconds]), self._zone)[0])
        elif naive and offsets is not None and len(offsets):
            seconds -= int(offsets[-1])
        elif naive:
            raise ArgumentError(
                f"timestamp={short(value)} names no zone: give unix seconds, or an offset with it"
            )
        if len(times) and seconds < times[-1]:
            raise ArgumentError(
                f"timestamp={short(value)} lies before user {user!r}'s last event: append in order"
            )
        return seconds

    def _queries(self, keys: list[_Key]) -> Queries:
        """The histories as requests."""
        rows = np.array([key if isinstance(key, int) else 0 for key in keys], dtype=np.int64)
        named = self._names.users.decode(rows).to_list()
        labels = [name if isinstance(key, int) else key[1] for name, key in zip(named, keys, strict=True)]
        return packed([self._history(key) for key in keys], labels)
