"""A log's events as arrays of indices: encode ids, sort, drop, renumber. Memory is a few words an event."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.collecting import reading
from recsys.datasets.preparing.event_options import EventOptions
from recsys.datasets.preparing.event_values import EventValues, read_values
from recsys.datasets.reading.logs import PART, ZONE, convert, kept_name
from recsys.datasets.reading.validate import CheckedLog
from recsys.datasets.schema import ITEM, POSITION, TIMESTAMP, USER
from recsys.datasets.splitting.parts import Parts
from recsys.datasets.splitting.stated import parts_of
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

KEY = "__key"
"""Column of a converted log that orders a user's events."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Events:
    """N events of one log.

    Attributes:
        users: (N,) int32, index into ``user_ids``.
        items: (N,) int32, index into ``item_ids``.
        keys: (N,) int64, time or place at the log's own resolution.
        per_second: ticks of ``keys`` in a second; None for a log of order alone.
        user_ids, item_ids: series of the distinct ids in rising order, int64 or string.
        zones: (N,) int32, index into ``zone_names``; None unless a column of time zones was asked for.
        zone_names: the distinct values of that column.
        parts: (N,) int8, the part of a split that the log states; None where it states none.
        values: what else is kept of the events; None where nothing was asked for.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    keys: NDArray[np.int64]
    per_second: int | None
    user_ids: "pl.Series"
    item_ids: "pl.Series"
    zones: NDArray[np.int32] | None = None
    zone_names: tuple[str, ...] = ()
    parts: Parts | None = None
    values: EventValues | None = None

    @property
    def timestamps(self) -> NDArray[np.int64] | None:
        """(N,) int64 unix seconds, or None for a log of order alone."""
        if self.per_second is None:
            return None
        return self.keys if self.per_second == 1 else self.keys // self.per_second

    def offsets(self) -> NDArray[np.int64]:
        """(U+1,) int64 first position of each user; events must be sorted by user."""
        offsets = np.zeros(self.user_ids.len() + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.users, minlength=self.user_ids.len()), out=offsets[1:])
        return offsets


def load_events(
    checked: CheckedLog,
    scratch: Path,
    *,
    zone_column: str | None = None,
    part_column: str | None = None,
    options: EventOptions | None = None,
) -> Events:
    """Read a checked log into arrays, in the log's order.

    Args:
        checked: from `recsys.datasets.reading.logs.open_log`.
        scratch: folder for a temporary Parquet copy of a text log, so that it is parsed only once more.
        zone_column: name of a column with each event's time zone, to be kept as codes.
        part_column: name of a column that says train, valid or test.
        options: what else is kept of the events.

    Raises:
        DataError: the log cannot be read any more, or has no such column, or an event without a zone.
        OSError: the scratch folder cannot be written.
    """
    import polars as pl

    raw = checked.raw
    options = options or EventOptions()
    frame = convert(checked, key=KEY, zone=zone_column, part=part_column, further=options.columns)
    frame = frame.drop(TIMESTAMP if checked.has_times else POSITION)
    further = [name for name, column in ((ZONE, zone_column), (PART, part_column)) if column is not None]
    further += [kept_name(name) for name in options.columns]
    asked = ["user", "item", KEY, *further]
    with reading(raw.label, raw.path, raw.separator):
        if raw.text:
            copy = scratch / "columns.parquet"
            frame.sink_parquet(copy, compression="lz4")
            frame = pl.scan_parquet(copy, glob=False)
        user_ids = frame.select(pl.col(USER).unique()).collect(engine="streaming")[USER].sort()
        item_ids = frame.select(pl.col(ITEM).unique()).collect(engine="streaming")[ITEM].sort()
        coded = (
            frame.join(numbered(user_ids, "user"), on=USER, how="left", maintain_order="left")
            .join(numbered(item_ids, "item"), on=ITEM, how="left", maintain_order="left")
            .select(asked)
            .collect(engine="streaming")
        )
    zones, parts = None, None
    zone_names: tuple[str, ...] = ()
    if zone_column is not None:
        zones, zone_names = coded_words(coded[ZONE], f"{raw.label}: column {zone_column!r}", "a zone")
    if part_column is not None:
        where = f"{raw.label}: column {part_column!r}"
        codes, words = coded_words(coded[PART], where, "a part (train, valid or test)")
        parts = parts_of(list(words), codes, where)
    return Events(
        users=coded["user"].to_numpy(),
        items=coded["item"].to_numpy(),
        keys=coded[KEY].to_numpy(),
        per_second=checked.per_second,
        user_ids=user_ids,
        item_ids=item_ids,
        zones=zones,
        zone_names=zone_names,
        parts=parts,
        values=read_values({name: coded[kept_name(name)] for name in options.columns}, options, raw.label),
    )


def sort_events(events: Events) -> Events:
    """Order events by user, then the part that the log states, then time, then place in the log."""
    keys = (events.keys, events.users) if events.parts is None else (events.keys, events.parts, events.users)
    order = np.lexsort(keys)  # stable, as merge sort is
    return _take(events, order)


def keep_events(events: Events, keep: NDArray[np.bool_]) -> Events:
    """Drop the events where ``keep`` is false, and the ids that are left without one."""
    if keep.all():
        return events
    kept = keep_users(events, keep)
    items, item_ids = _renumber(kept.items, events.item_ids)
    return replace(kept, items=items, item_ids=item_ids)


def keep_users(events: Events, keep: NDArray[np.bool_]) -> Events:
    """The same, but items keep their numbers."""
    if keep.all():
        return events
    kept = _take(events, np.flatnonzero(keep))
    users, user_ids = _renumber(kept.users, events.user_ids)
    return replace(kept, users=users, user_ids=user_ids)


def with_items(events: Events, ids: "pl.Series") -> Events:
    """The same events in a catalog that holds further items.

    Args:
        events: of V items.
        ids: of the type of the events' own.
    """
    every = united(events.item_ids, ids)
    places = every.search_sorted(events.item_ids).to_numpy().astype(np.int32)
    return replace(events, items=places[events.items], item_ids=every)


def united(ids: "pl.Series", further: "pl.Series") -> "pl.Series":
    """The distinct ids of two series of one type, in rising order."""
    import polars as pl

    return pl.concat([ids, further.alias(ids.name)]).unique().sort()


def count_duplicates(events: Events) -> int:
    """Events that repeat an earlier one of the same user, item and time; events must be sorted."""
    same = (events.users[1:] == events.users[:-1]) & (events.keys[1:] == events.keys[:-1])
    tied = np.zeros(len(events.users), dtype=bool)
    tied[1:] = same
    tied[:-1] |= same
    users, keys, items = events.users[tied], events.keys[tied], events.items[tied]
    order = np.lexsort((items, keys, users))
    users, keys, items = users[order], keys[order], items[order]
    repeats = (users[1:] == users[:-1]) & (keys[1:] == keys[:-1]) & (items[1:] == items[:-1])
    return int(np.count_nonzero(repeats))


def numbered(ids: "pl.Series", name: str) -> "pl.LazyFrame":
    """A table of ids and their numbers from 0, to join with."""
    import polars as pl

    return pl.LazyFrame([ids, pl.Series(name, np.arange(ids.len(), dtype=np.int32))])


def coded_words(values: "pl.Series", where: str, what: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Codes of a text column and its distinct values in order."""
    distinct = values.unique().sort()
    if distinct.null_count():
        raise DataError(f"{where} has events without {what}; fill them in")
    return distinct.search_sorted(values).to_numpy().astype(np.int32), tuple(distinct.to_list())


def _take(events: Events, order: NDArray[np.int64]) -> Events:
    return replace(
        events,
        users=events.users[order],
        items=events.items[order],
        keys=events.keys[order],
        zones=None if events.zones is None else events.zones[order],
        parts=None if events.parts is None else events.parts[order],
        values=None if events.values is None else events.values.take(order),
    )


def _renumber(codes: NDArray[np.int32], ids: "pl.Series") -> "tuple[NDArray[np.int32], pl.Series]":
    import polars as pl

    present = np.zeros(ids.len(), dtype=bool)
    present[codes] = True
    numbers: NDArray[Any] = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return numbers[codes], ids.filter(pl.Series(present))
