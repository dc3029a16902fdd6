"""The way back to training: events as a log that `recsys prepare` reads, beside the rows of an older one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.datasets.reading.logs import collect_sorted, open_log
from recsys.datasets.reading.options import ReadOptions
from recsys.datasets.schema import ITEM, TIMESTAMP, USER
from recsys.datasets.sources.exported import read_stamp, stamp_metadata
from recsys.datasets.sources.finding import find_source
from recsys.errors import ArgumentError, DataError
from recsys.events.event_columns import RESERVED
from recsys.events.export_values import ExportValues
from recsys.events.store import EventStore, RawId, StoredEvent
from recsys.files import replacing, user_path

if TYPE_CHECKING:
    import polars as pl

GROUP = 65_536
"""Events of a row group of the file."""

_TEXTS = ("type", "request_id")
_WORDS = {int: "numbers", str: "text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: of the file.
        store: identity of the event store.
        after, through: the events have after < seq <= through.
        events: of the store.
        old_rows: of the older log.
        erased_rows: of the older log that were left out, because their user was erased since.
        no_numbers: by column, how many values of events were left out, because the older log has numbers
            there and they are none.
    """

    path: Path
    store: str
    after: int
    through: int
    events: int
    old_rows: int = 0
    erased_rows: int = 0
    no_numbers: dict[str, int] = field(default_factory=dict)


def export_events(
    store: EventStore,
    out: str | Path,
    *,
    after: int | None = None,
    through: int | None = None,
    log: Any = None,
    options: ReadOptions | None = None,
) -> Exported:
    """Write the events of a store as a Parquet log, whole or not at all.

    Columns: user_id and item_id (int64 or string, as they were sent), timestamp (int64, unix seconds), type
    and request_id (string or null), and as text the older log's further columns of text, categories, numbers,
    true or false, and those that came with events. Where the older log has a column of numbers, what came
    with an event and is no number is left out, as a model of that log reads it: one such value would make
    words of all. The file names the store and the last place that it holds, which
    `recsys prepare` hands on, so that a service reads none of these events a second time.

    Args:
        store: open; others may write to it meanwhile.
        out: a .parquet file, replaced if it is there.
        after: leave out the events up to this place; None for what `log` holds of this store already, or 0.
        through: the last place to write; None for the last of all.
        log: an older log whose rows come first, as `recsys prepare` takes it; those of users who were erased
            since it was exported are left out. One without a name of this store is from before all erasures,
            or from place `after` where that is given.
        options: how to read `log`.

    Raises:
        ArgumentError: a place is negative, not there yet, or held by `log` already; `out` is no
            .parquet name.
        DataError: `log` cannot be read, has no times, or other kinds of ids; ids are of two kinds; nothing is
            left to write.
        EventStoreError: the store cannot be read.
        RunError: `out` cannot be written.
    """
    path = user_path(out)
    if path.suffix != ".parquet":
        raise ArgumentError(f"{out}: is written as Parquet; choose a name that ends in .parquet")
    source = None if log is None else find_source(log)
    held = None if source is None else read_stamp(source.log)
    before = held.through if held is not None and held.store == store.identity else 0
    first, last = _bounds(store, before, after, through)
    old, erased_rows = None, 0
    if source is not None:
        whole = _older(source.log, str(log), options or ReadOptions())
        old = _without(whole, store.erasures(first))
        erased_rows = len(whole) - len(old)
    values = ExportValues(old, _further(old, store, first, last))
    rows = _Rows(old, values)
    with replacing(path) as temporary:
        count = _write(temporary, rows, store, first, last)
        if not count and (old is None or not len(old)):
            raise DataError(f"{path}: would be empty: the store holds no event after {first} up to {last}")
    return Exported(
        path=path,
        store=store.identity,
        after=first,
        through=last,
        events=count,
        old_rows=0 if old is None else len(old),
        erased_rows=erased_rows,
        no_numbers=values.no_numbers,
    )


def _bounds(store: EventStore, held: int, after: int | None, through: int | None) -> tuple[int, int]:
    end = store.last_seq()
    first, last = held if after is None else after, end if through is None else through
    if first < 0 or last < 0:
        raise ArgumentError(f"{min(first, last)} is no place of an event; places begin at 1")
    if first < held:
        raise ArgumentError(
            f"after={first}: the older log holds the events up to {held} already, and those in between would"
            f" be there twice; pass after={held}, or leave it out"
        )
    if last > end:
        raise ArgumentError(f"the store has no place {last} yet; its last is {end}")
    if first > last:
        raise ArgumentError(f"no place is after {first} and not after {last}; the store's last is {end}")
    return first, last


def _older(log: Any, label: str, options: ReadOptions) -> "pl.DataFrame":
    """Rows of an older log, sorted by user and time, in the columns of an export."""
    import polars as pl

    checked = open_log(log, options)
    if not checked.has_times:
        raise DataError(f"{label}: has no times, and events have; give it a column of times first")
    frame = collect_sorted(checked)
    texts = [
        (pl.col(name).cast(pl.String) if name in frame.columns else pl.lit(None, pl.String)).alias(name)
        for name in _TEXTS
    ]
    kinds = (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
    further = [
        pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
        if name not in RESERVED and (kind.is_numeric() or kind in kinds)
    ]
    return frame.select(USER, ITEM, TIMESTAMP, *texts, *further)


def _further(old: "pl.DataFrame | None", store: EventStore, after: int, through: int) -> tuple[str, ...]:
    """Names of the columns beside those that every export has: the older log's, then those of events."""
    known = [] if old is None else [name for name in old.columns if name not in RESERVED]
    came = {
        name for part in store.read_all(after, through) for own in part for name in own.event.columns or ()
    }
    return (*known, *sorted(came - set(known)))


def _without(old: "pl.DataFrame", erased: list[RawId]) -> "pl.DataFrame":
    import polars as pl

    kind = int if old.schema[USER].is_integer() else str
    gone = [user for user in erased if type(user) is kind]
    return old.filter(~pl.col(USER).is_in(pl.Series(gone, dtype=old.schema[USER]).implode())) if gone else old


class _Rows:
    """Row groups of one schema: the kinds of ids are those of the older log, or of the first event."""

    def __init__(self, old: "pl.DataFrame | None", values: ExportValues) -> None:
        self.old, self._values = old, values
        self._kinds: tuple[type, type] | None = None
        if old is not None:
            user, item = (int if old.schema[name].is_integer() else str for name in (USER, ITEM))
            self._kinds = user, item

    def schema(self, first: list[StoredEvent]) -> Any:
        """Arrow's, once the first events are known."""
        import pyarrow as pa

        if self._kinds is None:
            event = first[0].event if first else None
            self._kinds = (type(event.user), type(event.item)) if event is not None else (int, int)
        user, item = (pa.int64() if kind is int else pa.string() for kind in self._kinds)
        texts = [(name, pa.string()) for name in (*_TEXTS, *self._values.names)]
        return pa.schema([(USER, user), (ITEM, item), (TIMESTAMP, pa.int64()), *texts])

    def checked(self, events: list[StoredEvent]) -> dict[str, list[Any]]:
        """Columns of events.

        Raises:
            DataError: an id is of another kind than those before.
        """
        assert self._kinds is not None
        for stored in events:
            ids = (("user", stored.event.user), ("item", stored.event.item))
            for (name, value), kind in zip(ids, self._kinds, strict=True):
                if type(value) is not kind:
                    before = "the older log" if self.old is not None else "the events before"
                    raise DataError(
                        f"event {stored.seq}: {name} {value!r} is not of the kind of {before},"
                        f" whose {name}s are {_WORDS[kind]}, and a log holds one kind;"
                        f" write the others apart, up to place {stored.seq - 1} or from there on"
                    )
        own = [stored.event for stored in events]
        return {
            USER: [event.user for event in own],
            ITEM: [event.item for event in own],
            TIMESTAMP: [event.time for event in own],
            **{name: [getattr(event, name) for event in own] for name in _TEXTS},
            **self._values.of(own),
        }

    def older(self) -> "pl.DataFrame | None":
        """Rows of the older log in these columns; None where there are none."""
        import polars as pl

        if self.old is None or not len(self.old):
            return None
        lacking = [name for name in self._values.names if name not in self.old.columns]
        whole = self.old.with_columns(pl.lit(None, pl.String).alias(name) for name in lacking)
        return whole.select(*RESERVED, *self._values.names)


def _write(path: Path, rows: _Rows, store: EventStore, after: int, through: int) -> int:
    """Write all rows, and return how many are events of the store."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = _groups(store.read_all(after, through))
    first = next(groups, [])
    schema = rows.schema(first).with_metadata(stamp_metadata(store.identity, after, through))
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        older = rows.older()
        if older is not None:
            writer.write_table(older.to_arrow().cast(schema), GROUP)
        group: list[StoredEvent] | None = first
        while group:
            writer.write_table(pa.table(rows.checked(group), schema=schema))
            count += len(group)
            group = next(groups, None)
    return count


def _groups(parts: Iterator[list[StoredEvent]]) -> Iterator[list[StoredEvent]]:
    group: list[StoredEvent] = []
    for part in parts:
        group += part
        if len(group) >= GROUP:
            yield group
            group = []
    if group:
        yield group
