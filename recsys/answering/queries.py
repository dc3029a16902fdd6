"""From raw ids, as users know them, to packed item indices, as encoders want them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Number
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from recsys.answering.arguments import id_list, short, warn_caller
from recsys.answering.request_times import ask_at, moment_list, read_moment
from recsys.datasets.prepared.sharded_store import events_of
from recsys.datasets.times.time_zones import local_to_unix, utc_offsets, zone_column
from recsys.errors import ArgumentError, UnknownIdError
from recsys.jagged import flat_ranges

if TYPE_CHECKING:
    from recsys.datasets.prepared.store import SequenceStore
    from recsys.datasets.prepared.vocabulary import Vocabulary

OnUnknown = Literal["raise", "warn", "ignore"]
Array = npt.NDArray[np.int64]


class Encoder(Protocol):
    """What turns raw ids into indices, -1 for those that it does not know."""

    def encode(self, ids: list[Any], /) -> npt.NDArray[Any]:
        """(n,) indices."""


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Histories of R requests, packed.

    Attributes:
        labels: R raw user ids as the log has them, or the position of each history in the call.
        items: (N,) int64 item indices.
        timestamps: (N,) int64 unix seconds, or None.
        offsets: (R+1,) int64; a request whose ids are all unknown has an empty history.
        utc_offsets: (N,) seconds from UTC to local time at each event, or None.
        at: (R,) int64 unix seconds at which each is asked; None is its last event's time.
        local_at: (R,) int64 local seconds of the same, or None.
        of_users: whether labels are user ids of the log.
        event_codes: (N, E) int64 codes of what came with each event, or None where nothing is known.
        user_codes: (R, C) int64 codes of what is known of each user, or None where nothing is.
        context: (R, Q) int64 codes of what is known of each request, those of its user behind them, or None
            where nothing is.
    """

    labels: list[Any]
    items: Array
    timestamps: Array | None
    offsets: Array
    utc_offsets: Array | None = None
    at: Array | None = None
    local_at: Array | None = None
    of_users: bool = False
    event_codes: Array | None = None
    user_codes: Array | None = None
    context: Array | None = None

    @property
    def local_times(self) -> Array | None:
        """(N,) int64 local seconds of every event, or None."""
        if self.timestamps is None or self.utc_offsets is None:
            return None
        return self.timestamps + self.utc_offsets

    def asked(self, at: Any, zone: str | None, *, needs_local: bool) -> "Queries":
        """The same requests asked at a moment; a warning counts those to which it stands for its hour alone.

        Arguments and errors are those of :func:`recsys.answering.request_times.ask_at`.
        """
        last = _at_last(self.timestamps, self.offsets)
        asked = ask_at(at, last, _at_last(self.utc_offsets, self.offsets), zone, needs_local=needs_local)
        if asked.later:
            warn_caller(
                f"at= lies before the last event of {asked.later} request(s): asked at the next such hour "
                "after it"
            )
        return self.at_moments(asked.unix, asked.local)

    def at_moments(self, at: Array | None, local_at: Array | None) -> "Queries":
        """The same requests asked at (R,) unix seconds, and local seconds of the same."""
        return replace(self, at=at, local_at=local_at)

    def __len__(self) -> int:
        return len(self.labels)


def of_users(
    users: Iterable[Any] | None, store: "SequenceStore", vocabulary: "Vocabulary", on_unknown: OnUnknown
) -> Queries:
    """Requests of users of the training log, with everything that the log knows of them.

    Args:
        users: raw user ids; None for all users of the log, in its order.
        store: the run's data.
        vocabulary: of users.
        on_unknown: what to do with ids that are not in it; "warn" and "ignore" leave them out.
    """
    if users is None:
        rows = np.arange(store.n_users)
        labels = vocabulary.decode(rows).to_list()
    else:
        asked = id_list(users, "users")
        found = np.asarray(vocabulary.encode(asked), dtype=np.int64)
        _complain("user", [u for u, row in zip(asked, found, strict=True) if row < 0], on_unknown)
        rows = found[found >= 0]
        # As the log spells them, so that answers to "1" and 1 can be joined to it.
        labels = vocabulary.decode(rows).to_list()
    return of_rows(rows, labels, store)


def of_rows(rows: Array, labels: list[Any], store: "SequenceStore") -> Queries:
    """Requests of users by their index in the log.

    Args:
        rows: (R,) int64.
        labels: their raw ids.
        store: the run's data.
    """
    store, rows = events_of(store, rows)
    starts = np.asarray(store.offsets[:-1], dtype=np.int64)[rows]
    ends = np.asarray(store.offsets[1:], dtype=np.int64)[rows]
    flat = flat_ranges(starts, ends)
    times = None if store.timestamps is None else np.asarray(store.timestamps[flat])
    items = np.asarray(store.items[flat], dtype=np.int64)
    zones = None if store.utc_offsets is None else np.asarray(store.utc_offsets[flat], dtype=np.int64)
    codes = None if store.event_codes is None else np.asarray(store.event_codes[flat], dtype=np.int64)
    users = None if store.user_codes is None else np.asarray(store.user_codes[rows], dtype=np.int64)
    return Queries(
        labels,
        items,
        times,
        _offsets(ends - starts),
        zones,
        of_users=True,
        event_codes=codes,
        user_codes=users,
    )


def of_histories(
    histories: Sequence[Iterable[Any]],
    vocabulary: "Encoder",
    on_unknown: OnUnknown,
    *,
    times: Iterable[Any] | None = None,
    needs_times: bool = False,
    zone: str | None = None,
    needs_zone: bool = False,
    codes_of: Callable[[Sequence[int]], Array | None] | None = None,
) -> Queries:
    """Requests of anyone, from raw item ids, oldest first.

    Args:
        histories: one sequence of raw item ids per request.
        vocabulary: of items.
        on_unknown: what to do with items that are not in it; "warn" and "ignore" leave them out.
        times: unix seconds or datetimes of every event, shaped like `histories`, none earlier than the one
            before it.
        needs_times: whether the model cannot do without them.
        zone: time zone of the histories, IANA name or offset; a column of the log says nothing of them.
        needs_zone: whether the model has a clock.
        codes_of: gives codes of what came with the events, by the histories' lengths; None where nothing is
            known of it.

    Raises:
        UnknownIdError: an item is unknown and ``on_unknown="raise"``.
        ArgumentError: lists of the wrong kind, or times that are missing or do not go with the histories.
    """
    if needs_times and times is None:
        raise ArgumentError(
            "this model reads the time of every event: pass times= with the history, in unix seconds"
        )
    zone = None if zone is None or zone_column(zone) else zone
    if needs_zone and zone is None:
        raise ArgumentError(
            "this model reads local hours, and the zone of these histories is not known: pass time_zone= "
            "with them"
        )
    sequences = _sequences(histories)
    flat = [item for history in sequences for item in history]
    found = np.asarray(vocabulary.encode(flat), dtype=np.int64) if flat else np.zeros(0, dtype=np.int64)
    _complain("item", [item for item, row in zip(flat, found, strict=True) if row < 0], on_unknown)
    owner = np.repeat(np.arange(len(sequences)), [len(history) for history in sequences])[found >= 0]
    counts = np.bincount(owner, minlength=len(sequences)).astype(np.int64)
    stamps = None if times is None else _times(times, sequences, zone)[found >= 0]
    zones = None if stamps is None or zone is None else utc_offsets(stamps, zone).astype(np.int64)
    codes = None if codes_of is None else codes_of([len(history) for history in sequences])
    return Queries(
        list(range(len(sequences))),
        found[found >= 0],
        stamps,
        _offsets(counts),
        zones,
        event_codes=None if codes is None else codes[found >= 0],
    )


def _sequences(histories: Any) -> list[list[Any]]:
    """The histories as lists; a flat list of ids, the history of one, is told from a list of histories."""
    if isinstance(histories, str | bytes):
        raise ArgumentError("histories must be a list of lists of item ids, not a string")
    if isinstance(histories, Number):
        raise ArgumentError(f"histories must be a list of lists of item ids: histories=[[{histories!r}]]")
    # A column of lists gives its lists, a matrix its rows.
    rows = id_list(histories, "histories") if getattr(histories, "ndim", 1) < 2 else list(histories)
    for row in rows:
        if isinstance(row, str | bytes):
            raise ArgumentError(
                "histories must be a list of lists of item ids, which hold not the single string "
                f"{row!r}: histories=[[{row!r}]]"
            )
        if not isinstance(row, Iterable) or getattr(row, "ndim", 1) == 0:
            shown = ", ".join(map(repr, rows[:3])) + (", ..." if len(rows) > 3 else "")
            raise ArgumentError(
                f"histories must be a list of lists of item ids, one for each request: histories=[[{shown}]]"
            )
    return [id_list(row, "histories") for row in rows]


def encode_items(
    ids: Iterable[Any] | None,
    vocabulary: "Encoder",
    on_unknown: OnUnknown,
    what: str,
    *,
    choice: bool = True,
) -> Array | None:
    """Item indices of an allow-list or a list of query items; None stays None.

    Args:
        ids: raw ids.
        vocabulary: that knows them.
        on_unknown: what becomes of others.
        what: the argument's name.
        choice: whether whoever passed them could have chosen another `on_unknown`.
    """
    if ids is None:
        return None
    asked = id_list(ids, what)
    found = np.asarray(vocabulary.encode(asked), dtype=np.int64) if asked else np.zeros(0, dtype=np.int64)
    unknown = [item for item, row in zip(asked, found, strict=True) if row < 0]
    _complain("item", unknown, on_unknown, choice=choice)
    return found[found >= 0]


def encode_denied(ids: Iterable[Any] | None, vocabulary: "Encoder", on_unknown: OnUnknown) -> Array | None:
    """Item indices of a deny-list; None stays None.

    An id that the catalog lacks is denied already, and the deny-lists of a shop hold many: they are left out,
    with a warning that counts them unless ``on_unknown="ignore"``.
    """
    if ids is None:
        return None
    found = np.asarray(vocabulary.encode(id_list(ids, "deny")), dtype=np.int64)
    unknown = int((found < 0).sum())
    if unknown and on_unknown != "ignore":
        warn_caller(f"deny: {unknown} of {len(found)} ids are not in the catalog: nothing to leave out")
    return found[found >= 0]


def _times(times: Any, sequences: list[list[Any]], zone: str | None) -> Array:
    """Pack the times of histories; one line says which history's do not fit."""
    rows = moment_list(times)
    if rows is None or len(rows) != len(sequences):
        raise ArgumentError("times must be a list of lists of unix seconds, one for each history")
    packed = [
        read_times(f"history {place}", own, len(sequences[place]), zone) for place, own in enumerate(rows)
    ]
    return np.concatenate([*packed, np.zeros(0, dtype=np.int64)])


def read_times(said: str, times: Any, length: int, zone: str | None) -> Array:
    """(L,) unix seconds of a history's events.

    Args:
        said: what an error calls the history.
        times: moments, oldest first.
        length: L.
        zone: of those that name none, IANA name or offset.

    Raises:
        ArgumentError: not L moments in order, or one that cannot be read.
    """
    stamps = moment_list(times)
    if stamps is None:
        raise ArgumentError(f"times of {said} must be a list of unix seconds, one for each item")
    if len(stamps) != length:
        raise ArgumentError(f"{said} has {length} items and {len(stamps)} times")
    read = [read_moment(moment, f"times of {said} hold {short(moment)}") for moment in stamps]
    seconds = np.array([value for value, _ in read], dtype=np.int64)
    naive = np.array([local for _, local in read], dtype=np.bool_)
    if naive.any():
        if zone is None:
            raise ArgumentError(f"times of {said} name no zone: pass time_zone= with them, or unix seconds")
        seconds = np.where(naive, local_to_unix(seconds, zone), seconds)
    late = np.flatnonzero(np.diff(seconds) < 0)
    if len(late):
        raise ArgumentError(f"times of {said} go back to {stamps[late[0] + 1]}: give the oldest event first")
    return seconds


def _at_last(values: Array | None, offsets: Array) -> Array | None:
    """(R,) the value of each history's last event, 0 where there is none."""
    if values is None:
        return None
    found = np.zeros(len(offsets) - 1, dtype=np.int64)
    filled = np.diff(offsets) > 0
    found[filled] = values[offsets[1:][filled] - 1]
    return found


def _complain(kind: str, unknown: list[Any], on_unknown: OnUnknown, *, choice: bool = True) -> None:
    """Say which ids are unknown; `choice` tells whether the caller could have passed another `on_unknown`."""
    if on_unknown not in ("raise", "warn", "ignore"):
        raise ArgumentError(f"on_unknown = {on_unknown!r} is not raise, warn or ignore")
    if not unknown or on_unknown == "ignore":
        return
    shown = ", ".join(map(short, unknown[:3])) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    if on_unknown == "raise":
        remedy = "on_unknown='warn' leaves it out" if choice else "check the id"
        raise UnknownIdError(f"unknown {kind} {shown}: not in the training log; {remedy}")
    warn_caller(f"unknown {kind} {shown} left out: not in the training log")


def _offsets(lengths: Array) -> Array:
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)))
