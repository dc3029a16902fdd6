"""Requests that each have a history and filters of their own, from raw ids to what is encoded and searched.

What is unknown or wrong of one request is said of that one, as a value: nothing is warned of, and the others
go on.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recsys.answering.arguments import id_list, short, whole_number
from recsys.answering.event_columns import codes_of_context, codes_of_event, codes_of_events
from recsys.answering.interests import RECENT, check_interests
from recsys.answering.names import Names
from recsys.answering.queries import Array, Encoder, read_times
from recsys.answering.request_times import ask_at, read_asked
from recsys.answering.requests import zone_of
from recsys.answering.user_events import UserEvents, log_events
from recsys.datasets.times.time_zones import zone_column
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError, RecsysError

_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request in raw ids: what the log holds of a user, then `since`, then `history`.

    Attributes:
        user: raw id; one that the log does not know has no events there. None is nobody.
        log: whether what the log holds of the user is read.
        since: items and unix seconds of what came since, sorted by time among the log's; seconds are not
            read where the log has none.
        since_columns: of each event of `since` what came with it by column, None where nothing is known;
            columns that the model does not read are passed over. Empty where nothing is known of any.
        history: items, oldest first.
        times: moments of every event of `history`, none before the event before it; or None.
        columns: by an event column's name what came with each event of `history`; or None. Values that
            training did not know are missing.
        context: by the name of a request or user column what is known of the request; or None.
        at: when the answer is wanted, as `Recommender.recommend` takes it.
        time_zone: of the request, IANA name or ``+HH:MM``; None is the log's, or the user's own.
        k: answers.
        exclude_seen: leave out what the history holds.
        allow: only these items may be answered; None is all.
        deny: these may not.
        category: only items of this category, or of any of these.
        interests: query vectors.
    """

    user: Any = None
    log: bool = True
    since: Sequence[tuple[Any, int]] = ()
    since_columns: Sequence[Mapping[str, Any] | None] = ()
    history: Iterable[Any] = ()
    times: Iterable[Any] | None = None
    columns: Mapping[str, Iterable[Any]] | None = None
    context: Mapping[str, Any] | None = None
    at: Any = None
    time_zone: str | None = None
    k: int = 10
    exclude_seen: bool = True
    allow: Iterable[Any] | None = None
    deny: Iterable[Any] | None = None
    category: str | Iterable[str] | None = None
    interests: int = 1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reading:
    """A request as it is encoded and searched.

    Attributes:
        events: (L,) known items of the history, with times where the encoder reads them.
        at: unix seconds at which it is asked; None where the encoder reads no such time.
        local_at: local seconds of the same; None without a clock.
        later: whether `at` lay before the last event, and stands for the next such hour after it.
        user_known: whether the log knows the user.
        length: events of the history, unknown items among them.
        encoded: those that the encoder sees.
        unknown: raw ids of the others, left out.
        unknown_filters: raw ids among `allow` and `deny` that are no items.
        k: answers.
        exclude_seen: leave out what the history holds.
        allow: (A,) int64 items that may be answered, those of the category among them; None is all.
        deny: (D,) int64 items that may not, or None.
        interests: query vectors.
        renewed: how often added items had got other features.
        context: (1, Q) int64 codes of what is known of the request and its user; None where nothing is read.
    """

    events: UserEvents
    at: int | None
    local_at: int | None
    later: bool
    user_known: bool
    length: int
    encoded: int
    unknown: tuple[Any, ...]
    unknown_filters: tuple[Any, ...]
    k: int
    exclude_seen: bool
    allow: Array | None
    deny: Array | None
    interests: int
    renewed: int
    context: Array | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is known of the request."""
        return len(self.events.items) == 0

    def state_key(self) -> bytes:
        """16 bytes that say what the query vectors are made of: equal ones for equal vectors of a model."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(np.array([self.interests, len(self.events.items)], dtype=np.int64).tobytes())
        digest.update(repr((self.at, self.local_at, self.renewed)).encode())
        # The states of `RECENT` events each see a window.
        recent = slice(-(self.encoded + (RECENT if self.interests > 1 else 0)), None)
        events = self.events
        for column in (events.items, events.times, events.utc_offsets, events.codes):
            digest.update(b"-" if column is None else column[recent].tobytes())
        digest.update(b"-" if self.context is None else self.context.tobytes())
        return digest.digest()


@dataclass(slots=True)
class _Lists:
    """The ids of a request as lists of plain ids."""

    request: Request
    since: list[Any]
    history: list[Any]
    allow: list[Any] | None
    deny: list[Any] | None


class _Rows(NamedTuple):
    """The same as indices, -1 for what is unknown."""

    user: int
    since: Array
    history: Array
    allow: Array
    deny: Array


def read_requests(
    encoder: SequenceEncoder, names: Names, requests: Sequence[Request]
) -> list[Reading | RecsysError]:
    """Look up the ids of requests, all at once, and put their histories together.

    Args:
        encoder: which times it reads decides what a request needs.
        names: of the log.
        requests: R of them.

    Returns:
        R readings, or in its place why a request cannot be answered: an id that is neither text nor a whole
        number, a time or zone that is missing or wrong, an unknown category, a number out of range.
    """
    listed: list[_Lists | RecsysError] = []
    for request in requests:
        try:
            listed.append(_checked(request))
        except RecsysError as error:
            listed.append(error)
    whole = [own for own in listed if isinstance(own, _Lists)]
    items = iter(_rows(names.readable, [ids for own in whole for ids in (own.since, own.history)]))
    filters = iter(_rows(names.answerable, [ids or [] for own in whole for ids in (own.allow, own.deny)]))
    users = iter(_rows(names.users, [[own.request.user] for own in whole]))
    found: list[Reading | RecsysError] = []
    for own in listed:
        if isinstance(own, RecsysError):
            found.append(own)
            continue
        rows = _Rows(int(next(users)[0]), next(items), next(items), next(filters), next(filters))
        try:
            found.append(_read(encoder, names, own, rows))
        except RecsysError as error:
            found.append(error)
    return found


def check_raw_ids(ids: Iterable[Any], what: str) -> list[Any]:
    """A list of ids that are text or whole numbers: True is no text, and 1.0 is not 1.

    Args:
        ids: what was passed.
        what: the argument's name.

    Raises:
        ArgumentError: something else is among them, or it is no list.
    """
    found = ids if type(ids) is list else id_list(ids, what)
    for value in found:
        if type(value) is not int and type(value) is not str and not isinstance(value, np.integer):
            raise ArgumentError(f"{what} holds {short(value)}: ids are text or whole numbers")
    return found


def _checked(request: Request) -> _Lists:
    whole_number(request.k, "k")
    check_interests(request.interests)
    if not isinstance(request.exclude_seen, bool | np.bool_):
        raise ArgumentError(f"exclude_seen={request.exclude_seen!r} must be True or False")
    if request.user is not None:
        check_raw_ids([request.user], "user")
    return _Lists(
        request,
        check_raw_ids([item for item, _ in request.since], "since"),
        check_raw_ids(request.history, "history"),
        None if request.allow is None else check_raw_ids(request.allow, "allow"),
        None if request.deny is None else check_raw_ids(request.deny, "deny"),
    )


def _rows(vocabulary: Encoder, lists: list[list[Any]]) -> list[Array]:
    """Indices of several lists of ids, looked up together."""
    flat = [value for own in lists for value in own]
    rows = np.asarray(vocabulary.encode(flat), dtype=np.int64) if flat else _NOTHING
    return np.split(rows, np.cumsum([len(own) for own in lists])[:-1])


def _read(encoder: SequenceEncoder, names: Names, own: _Lists, rows: _Rows) -> Reading:
    request = own.request
    zone = zone_of(names.store, request.time_zone)
    events = _history(encoder, names, own, rows, zone)
    unknown = _unknown(own.since, rows.since) + _unknown(own.history, rows.history)
    at, local_at, later = _asked(encoder, request.at, events, zone)
    may = None if own.allow is None else _known(rows.allow)
    if request.category is not None:
        within = names.of_category(request.category)
        may = within if may is None else np.intersect1d(within, may)
    return Reading(
        events=events,
        at=at,
        local_at=local_at,
        later=later,
        user_known=rows.user >= 0,
        length=len(events.items) + len(unknown),
        encoded=min(len(events.items), encoder.history_length),
        unknown=unknown,
        unknown_filters=_unknown(own.allow or [], rows.allow) + _unknown(own.deny or [], rows.deny),
        k=whole_number(request.k, "k"),
        exclude_seen=bool(request.exclude_seen),
        allow=may,
        deny=None if own.deny is None else _known(rows.deny),
        interests=request.interests,
        renewed=names.answerable.renewed,
        context=_context(encoder, names, request, events),
    )


def _context(encoder: SequenceEncoder, names: Names, request: Request, events: UserEvents) -> Array | None:
    if not encoder.n_request_codes and request.context is None:
        return None
    for name, value in (request.context or {}).items():
        if isinstance(value, Iterable) and not isinstance(value, str):
            raise ArgumentError(
                f"context: {name!r} holds {short(value)}: a request has one value of a column"
            )
    users = None if events.users is None else events.users[None]
    return codes_of_context(encoder, names.store, request.context, 1, users=users, warned=False)


def _codes_since(encoder: SequenceEncoder, names: Names, request: Request) -> Array | None:
    """(S, E) codes of what came with the events of `since`; None where nothing is known or read."""
    read = encoder.told_of_events
    if not read or not request.since_columns:
        return None
    known = [
        {name: value for name, value in (own or {}).items() if name in read} for own in request.since_columns
    ]
    rows = [codes_of_event(encoder, names.store, own, warned=False) for own in known]
    return np.stack([row for row in rows if row is not None])


def _codes_of_history(encoder: SequenceEncoder, names: Names, own: "_Lists") -> Array | None:
    """(H, E) codes of what came with the events of `history`; None where nothing is known."""
    columns = own.request.columns
    if columns is None:
        return None
    if not isinstance(columns, Mapping):
        raise ArgumentError(f"columns={short(columns)} is no mapping: give lists of values by column")
    lists = {name: [values] for name, values in columns.items()}
    return codes_of_events(encoder, names.store, lists, [len(own.history)], warned=False)


def _history(
    encoder: SequenceEncoder, names: Names, own: _Lists, rows: _Rows, zone: str | None
) -> UserEvents:
    """The known events of a request, oldest first, with times if the encoder reads them."""
    request, named = own.request, None if zone_column(zone) else zone
    events = log_events(names.store, rows.user if request.log and rows.user >= 0 else None)
    if own.since:
        stamps = np.array([time for _, time in request.since], dtype=np.int64)
        codes = _codes_since(encoder, names, request)
        known = rows.since >= 0
        told = None if codes is None else codes[known]
        events = events.followed_by(_known(rows.since), stamps[known], named, told).in_order()
    reads_times = encoder.needs_timestamps or encoder.needs_local_times
    times = None
    if request.times is not None:
        times = read_times("the history", request.times, len(own.history), named)
        _in_order(events, times)
        times = times[rows.history >= 0]
    elif own.history and reads_times:
        raise ArgumentError(
            "this model reads the time of every event: pass times= with the history, in unix seconds"
        )
    codes = _codes_of_history(encoder, names, own)
    if own.history:
        told = None if codes is None else codes[rows.history >= 0]
        events = events.followed_by(_known(rows.history), times, named, told)
    if encoder.needs_local_times and events.utc_offsets is None:
        raise ArgumentError(
            "this model reads local hours, and the zone of this history is not known: pass time_zone= with it"
        )
    if reads_times or encoder.reads_request_time:
        return events
    return events._replace(times=None, utc_offsets=None)


def _in_order(before: UserEvents, times: Array) -> None:
    if before.times is not None and len(before.times) and len(times) and times[0] < before.times[-1]:
        raise ArgumentError(
            f"times of the history go back to {times[0]}, and the user's last event is at "
            f"{before.times[-1]}: give the oldest event first"
        )


def _asked(
    encoder: SequenceEncoder, at: Any, events: UserEvents, zone: str | None
) -> tuple[int | None, int | None, bool]:
    """Unix and local seconds at which a request is asked, and whether that is later than it says."""
    if not encoder.reads_request_time:
        if at is not None:
            raise ArgumentError("at= has no part in this model's answers: train one with clock=True")
        return None, None, False
    if len(events.items) == 0:
        if at is not None:
            read_asked(at)
        return None, None, False
    needs_local = encoder.needs_local_times
    last = [None if column is None else column[-1:] for column in (events.times, events.utc_offsets)]
    found = ask_at(at, last[0], last[1], zone, needs_local=needs_local)
    unix = None if found.unix is None else int(found.unix[0])
    local = int(found.local[0]) if needs_local and found.local is not None else None
    return unix, local, found.later > 0


def _known(rows: Array) -> Array:
    return rows[rows >= 0]


def _unknown(ids: list[Any], rows: Array) -> tuple[Any, ...]:
    return tuple(ids[place] for place in np.flatnonzero(rows < 0).tolist())
