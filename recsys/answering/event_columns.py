"""What callers say of events and requests besides ids and times, as the codes that a model reads."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recsys.answering.arguments import short, warn_caller
from recsys.answering.queries import Array
from recsys.datasets.prepared.event_columns import MISSING, EventColumn
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.user_codes import CodeRows, with_users
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.event_columns import LOCAL_HOUR
from recsys.errors import ArgumentError

__all__ = ["codes_of_context", "codes_of_event", "codes_of_events", "input_codes", "names_users"]


def codes_of_context(
    encoder: SequenceEncoder,
    store: SequenceStore,
    context: Mapping[str, Any] | None,
    n: int,
    *,
    users: Array | None = None,
    warned: bool = True,
) -> Array | None:
    """(n, R + C) int64 codes of what is known of requests, and behind them of their users.

    Args:
        encoder: in evaluation mode.
        store: the run's data.
        context: by the name of a request or user column a value for all requests, or a list of one for each;
            a request column that is not named is missing, and a user column what the log says. None where
            nothing more is known.
        n: requests.
        users: (n, C) int64 codes of what the log knows of the users, or None.
        warned: whether a warning says which values training did not know.

    Returns:
        None where nothing is known.

    Raises:
        ArgumentError: it is no mapping, the model reads no such column, or a list is of another length.
    """
    if context is None and users is None:
        return None
    known = store.event_columns
    columns = () if known is None else (*known.requests, *known.users)
    codes = np.full((n, len(columns)), MISSING, dtype=np.int64)
    if users is not None and users.shape[1]:
        codes[:, -users.shape[1] :] = users
    if context is None:
        return codes
    _check_names("context", context, encoder.told_of_requests)
    for name, given in context.items():
        # A number of numpy has __iter__ and no axis.
        several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
        several = several and getattr(given, "ndim", 1) > 0
        values = list(given) if several else [given]
        if several and len(values) != n:
            raise ArgumentError(f"context: {name!r} holds {len(values)} values for {n} requests: one each")
        for place, column in enumerate(columns):
            if column.name == name:
                codes[:, place] = _coded("context", column, values, warned=warned)
    return codes


def names_users(encoder: SequenceEncoder, context: Mapping[str, Any] | None) -> bool:
    """Whether a context says what is known of users, which their first events are read by as well."""
    return context is not None and any(name in encoder.config.user_columns for name in context)


def input_codes(
    encoder: SequenceEncoder, events: Array | None, context: Array | None, offsets: Array
) -> CodeRows | None:
    """Rows (n, E + C) by events' positions of what an encoder reads at the input; None where that is nothing.

    Args:
        encoder: in evaluation mode.
        events: (N, E) codes of what came with the events of R histories, or None where nothing is known.
        context: (R, R + C) codes of the requests and their users, or None likewise.
        offsets: (R+1,) of the histories.
    """
    width, n_users = encoder.n_event_codes, encoder.n_user_codes
    if not width or not n_users:
        return events if width else None
    of_events = width - n_users
    if events is None and of_events:
        events = np.broadcast_to(np.zeros((), dtype=np.int64), (int(offsets[-1]), of_events))
    shape = (len(offsets) - 1, n_users)
    users = np.zeros(shape, dtype=np.int64) if context is None else context[:, -n_users:]
    return with_users(events, users, offsets)


def codes_of_event(
    encoder: SequenceEncoder, store: SequenceStore, given: Mapping[str, Any] | None, *, warned: bool = True
) -> Array | None:
    """(E,) int64 codes of what came with one event; None where nothing is known.

    Args:
        encoder: in evaluation mode.
        store: the run's data.
        given: by the event column's name a value.
        warned: whether a warning says which values training did not know.

    Raises:
        ArgumentError: it is no mapping, or the model reads no such column.
    """
    if given is None:
        return None
    columns = () if store.event_columns is None else store.event_columns.events
    _check_names("columns", given, encoder.told_of_events)
    codes = np.full(len(columns), MISSING, dtype=np.int64)
    for place, column in enumerate(columns):
        if column.name in given:
            codes[place] = _coded("columns", column, [given[column.name]], warned=warned)[0]
    return codes


def codes_of_events(
    encoder: SequenceEncoder,
    store: SequenceStore,
    given: Mapping[str, Iterable[Iterable[Any]]] | None,
    lengths: Sequence[int],
    *,
    warned: bool = True,
) -> Array | None:
    """(N, E) int64 codes of what came with the events of histories, end to end.

    Args:
        encoder: in evaluation mode.
        store: the run's data.
        given: by the event column's name a list for each history, with a value for each of its items; a
            column that is not named is missing. None where nothing is known.
        lengths: items of each history.
        warned: whether a warning says which values training did not know.

    Returns:
        None where nothing is known.

    Raises:
        ArgumentError: it is no mapping, the model reads no such column, or lists do not fit the histories.
    """
    if given is None:
        return None
    columns = () if store.event_columns is None else store.event_columns.events
    _check_names("columns", given, encoder.told_of_events)
    places = {column.name: place for place, column in enumerate(columns)}
    codes = np.full((sum(lengths), len(columns)), MISSING, dtype=np.int64)
    for name, lists in given.items():
        if isinstance(lists, str) or not isinstance(lists, Iterable):
            raise ArgumentError(f"columns: {name!r} must be a list of lists, one for each history")
        rows = [list(own) if isinstance(own, Iterable) and not isinstance(own, str) else own for own in lists]
        if len(rows) != len(lengths):
            raise ArgumentError(f"columns: {name!r} has {len(rows)} lists for {len(lengths)} histories")
        for place, (own, length) in enumerate(zip(rows, lengths, strict=True)):
            if not isinstance(own, list) or len(own) != length:
                held = f"{len(own)} values" if isinstance(own, list) else short(own)
                raise ArgumentError(f"columns: {name!r} has {held} for the {length} items of history {place}")
        values = [value for own in rows for value in own]
        codes[:, places[name]] = _coded("columns", columns[places[name]], values, warned=warned)
    return codes


def _check_names(what: str, given: Any, read: Sequence[str]) -> None:
    """Refuse what is no mapping of columns that the model reads."""
    if isinstance(given, Mapping) and LOCAL_HOUR in given:
        told = "at=" if what == "context" else "times="
        raise ArgumentError(f"{what} names {LOCAL_HOUR!r}, the hour of local times: say it by {told}")
    role = "request or user" if what == "context" else "event"
    if not read:
        raise ArgumentError(
            f"{what}= has no part in this model's answers: it was trained without {role} columns"
        )
    if not isinstance(given, Mapping):
        raise ArgumentError(f"{what}={short(given)} is no mapping: give values of {', '.join(read)}")
    for name in given:
        if name not in read:
            raise ArgumentError(f"{what} names {name!r}, which the model does not read: {', '.join(read)}")


def _coded(what: str, column: EventColumn, values: Sequence[Any], *, warned: bool) -> Array:
    codes = column.codes(values).astype(np.int64)
    if not warned:
        return codes
    unknown = [v for v, code in zip(values, codes, strict=True) if code == MISSING and not _is_missing(v)]
    if unknown:
        warn_caller(
            f"{what}: {column.name} {short(unknown[0])} is nothing that training knew: taken as missing"
        )
    return codes


def _is_missing(value: Any) -> bool:
    """Whether a caller says that nothing is known: None, no text, or NaN as frames have it."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or (isinstance(value, str) and not value.strip())
