"""What a caller asks, as packed queries: known users or histories, and when the answers are wanted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Number
from typing import Any

from recsys.answering.event_columns import codes_of_context, codes_of_events
from recsys.answering.names import Names
from recsys.answering.queries import OnUnknown, Queries, of_histories, of_users
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.times.time_zones import check_time_zone
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError


def make_queries(
    encoder: SequenceEncoder,
    store: SequenceStore,
    names: Names,
    users: Iterable[Any] | None,
    histories: Sequence[Iterable[Any]] | None,
    *,
    times: Iterable[Any] | None,
    at: Any,
    time_zone: str | None,
    on_unknown: OnUnknown,
    columns: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Queries:
    """Look up ids, times and zones; the arguments are those of `Recommender.recommend`.

    Raises:
        UnknownIdError: an id is unknown and ``on_unknown="raise"``.
        ArgumentError: both users and histories, or times that are missing or do not go with the histories.
    """
    if users is not None and isinstance(histories, Number):
        raise ArgumentError(
            f"histories={histories!r} is no list of histories: the number of answers is k={histories!r}"
        )
    if users is not None and histories is not None:
        raise ArgumentError("pass users or histories, not both")
    if times is not None and histories is None:
        raise ArgumentError("times go with histories: those of the log's users are known")
    if columns is not None and histories is None:
        raise ArgumentError("columns go with histories: what came with the log's events is known")
    zone = zone_of(store, time_zone)
    if histories is not None:
        queries = of_histories(
            histories,
            names.readable,
            on_unknown,
            times=times,
            needs_times=encoder.needs_timestamps or encoder.needs_local_times,
            zone=zone,
            needs_zone=encoder.needs_local_times,
            codes_of=partial(codes_of_events, encoder, store, columns),
        )
    else:
        queries = of_users(users, store, names.users, on_unknown)
    known = codes_of_context(encoder, store, context, len(queries), users=queries.user_codes)
    return replace(asked(encoder, queries, at, zone), context=known)


def asked(encoder: SequenceEncoder, queries: Queries, at: Any, zone: str | None) -> Queries:
    """The requests asked at a moment, if the model reads it; None is the time of each last event.

    Raises:
        ArgumentError: a moment that cannot be read, or one for a model that reads none.
    """
    if encoder.reads_request_time:
        return queries.asked(at, zone, needs_local=encoder.needs_local_times)
    if at is not None:
        raise ArgumentError("at= has no part in this model's answers: train one with clock=True")
    return queries


def zone_of(store: SequenceStore, time_zone: str | None) -> str | None:
    """The zone of requests: the one that was asked for, else the log's.

    Raises:
        ArgumentError: an unknown zone.
    """
    if time_zone is not None:
        check_time_zone(time_zone)
    return time_zone or (store.meta.get("time") or {}).get("time_zone")
