"""What callers say of events and requests besides ids and times, as the codes that a model reads."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recsys.answering.arguments import short, warn_caller
from recsys.answering.queries import Array
from recsys.datasets.prepared.event_columns import MISSING, EventColumn
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError

__all__ = ["codes_of_context", "codes_of_events"]


def codes_of_context(
    encoder: SequenceEncoder, store: SequenceStore, context: Mapping[str, Any] | None, n: int
) -> Array | None:
    """(n, R) int64 codes of what is known of requests.

    Args:
        encoder: in evaluation mode.
        store: the run's data.
        context: by the request column's name a value for all requests, or a list of one for each; a column
            that is not named is missing. None where nothing is known.
        n: requests.

    Returns:
        None where nothing is known.

    Raises:
        ArgumentError: it is no mapping, the model reads no such column, or a list is of another length.
    """
    if context is None:
        return None
    columns = () if store.event_columns is None else store.event_columns.requests
    places = _places("context", context, columns, encoder.config.request_columns)
    codes = np.full((n, len(columns)), MISSING, dtype=np.int64)
    for name, given in context.items():
        # A number of numpy has __iter__ and no axis.
        several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
        several = several and getattr(given, "ndim", 1) > 0
        values = list(given) if several else [given]
        if several and len(values) != n:
            raise ArgumentError(f"context: {name!r} holds {len(values)} values for {n} requests: one each")
        codes[:, places[name]] = _coded("context", columns[places[name]], values)
    return codes


def codes_of_events(
    encoder: SequenceEncoder,
    store: SequenceStore,
    given: Mapping[str, Iterable[Iterable[Any]]] | None,
    lengths: Sequence[int],
) -> Array | None:
    """(N, E) int64 codes of what came with the events of histories, end to end.

    Args:
        encoder: in evaluation mode.
        store: the run's data.
        given: by the event column's name a list for each history, with a value for each of its items; a
            column that is not named is missing. None where nothing is known.
        lengths: items of each history.

    Returns:
        None where nothing is known.

    Raises:
        ArgumentError: it is no mapping, the model reads no such column, or lists do not fit the histories.
    """
    if given is None:
        return None
    columns = () if store.event_columns is None else store.event_columns.events
    places = _places("columns", given, columns, encoder.config.event_columns)
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
        codes[:, places[name]] = _coded("columns", columns[places[name]], values)
    return codes


def _places(what: str, given: Any, columns: Sequence[EventColumn], read: Sequence[str]) -> dict[str, int]:
    """Where the named columns stand among the data's."""
    role = "request" if what == "context" else "event"
    if not read:
        raise ArgumentError(
            f"{what}= has no part in this model's answers: it was trained without {role} columns"
        )
    if not isinstance(given, Mapping):
        raise ArgumentError(f"{what}={short(given)} is no mapping: give values of {', '.join(read)}")
    for name in given:
        if name not in read:
            raise ArgumentError(f"{what} names {name!r}, which the model does not read: {', '.join(read)}")
    return {column.name: place for place, column in enumerate(columns)}


def _coded(what: str, column: EventColumn, values: Sequence[Any]) -> Array:
    codes = column.codes(values).astype(np.int64)
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
