"""Open a log: find its columns, check their values, convert them. Nothing is held in memory."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from recsys.datasets.collecting import reading
from recsys.datasets.reading.columns import scan_columns, scan_parts
from recsys.datasets.reading.frames import as_frame
from recsys.datasets.reading.nothing_taken import fill_nothing_taken
from recsys.datasets.reading.options import ReadOptions
from recsys.datasets.reading.parquet_parts import parquet_parts
from recsys.datasets.reading.raw_log import RawLog
from recsys.datasets.reading.roles import choose_roles, guess_notice
from recsys.datasets.reading.spool import as_utf8, local_file, user_file
from recsys.datasets.reading.text_formats import Layout, detect_layout, guess_roles
from recsys.datasets.reading.validate import CheckedLog, check_log
from recsys.datasets.schema import ITEM, POSITION, TIMESTAMP, USER, TimeUnit
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl


ZONE = "__zone"
"""Column of time zones in a converted log."""

PART = "__part"
"""Column of the parts that a log states in a converted log."""


def open_log(
    log: Any, options: ReadOptions, *, columns: Mapping[str, str] | None = None, shown: str | None = None
) -> CheckedLog:
    """Open a log and check every value of its three columns.

    Args:
        log: path of a file or of a folder of Parquet parts, or what `as_frame` takes.
        options: how to read it.
        columns: further columns that have to be there, by what they are for.
        shown: one of them, of what was shown: rows that have it and no item bear the item
            `recsys.datasets.reading.nothing_taken.NOTHING`.

    Returns:
        The checked log with its expressions.

    Raises:
        ArgumentError: an option is unknown.
        DataError: the file cannot be read, lacks a column, or holds a bad value; one line says where.
    """
    return check_log(fill_nothing_taken(_raw_log(log, options, columns or {}), shown))


def open_parts(
    logs: Mapping[str, Any], options: ReadOptions, *, columns: Mapping[str, str], shown: str | None = None
) -> CheckedLog:
    """Open a log that stands in several files, one for each part of a split.

    Args:
        logs: part (train, valid, test) to log.
        options: how to read each.
        columns: as in `open_log`.
        shown: likewise.

    Returns:
        All events in one log, with the part of each in the column PART.
    """
    import polars as pl

    raws = [fill_nothing_taken(_raw_log(log, options, columns), shown) for log in logs.values()]
    for raw in raws:  # each by itself, so that a message names the right file and row
        check_log(raw)
    if len({raw.time is None for raw in raws}) > 1:
        raise DataError(f"{raws[0].label}: some of the files have times and some have not; give all or none")
    first = raws[0]
    frames = []
    for raw, part in zip(raws, logs, strict=True):
        own = [(raw.user, USER), (raw.item, ITEM), *([(raw.time, TIMESTAMP)] if raw.time else [])]
        own += [(name, name) for name in columns.values()]
        frames.append(
            raw.frame.select([pl.col(a).alias(b) for a, b in own]).with_columns(pl.lit(part).alias(PART))
        )
    schemas = [frame.collect_schema() for frame in frames]
    for name in schemas[0]:
        if len({schema[name] for schema in schemas}) > 1:
            frames = [frame.with_columns(pl.col(name).cast(pl.String)) for frame in frames]
    return check_log(
        RawLog(
            frame=pl.concat(frames),
            label=" + ".join(raw.label for raw in raws),
            user=USER,
            item=ITEM,
            time=None if first.time is None else TIMESTAMP,
            unit=first.unit,
            time_format=options.time_format,
            text=True,
            notices=tuple(notice for raw in raws for notice in raw.notices),
        )
    )


def _raw_log(log: Any, options: ReadOptions, columns: Mapping[str, str]) -> RawLog:
    frame = as_frame(log)
    layout, path, label, unit = None, None, "frame", options.time_unit
    if frame is not None:
        scanned = frame.lazy()
    else:
        path, label = user_file(log), str(log)
        parts = parquet_parts(path)
        if parts:
            scanned, path = scan_parts(parts), None
        else:
            path = local_file(path)
            if options.encoding is not None:
                path = as_utf8(path, options.encoding)
            layout = detect_layout(path, options)
            scanned = scan_columns(path, layout, _named(options, columns))
    notices = _unused(options, label, layout)
    if layout is not None and layout.format == "sequences":
        notices.append(f"{label}: read as one line per user, the items in the order of the line")
    by_rows = unit == "order" or (layout is not None and _in_order(layout) and unit is None)
    with reading(label, path, layout.separator if layout else None):
        names = scanned.collect_schema().names()
    guessed = guess_roles(layout) if layout is not None and layout.columns and not layout.header else {}
    roles = choose_roles(options, names, label, guessed=guessed, by_rows=by_rows, others=dict(columns))
    if guessed and (told := guess_notice(label, roles, options, names)):
        notices.append(told)
    return RawLog(
        frame=scanned,
        label=label,
        user=roles.user,
        item=roles.item,
        time=roles.time,
        unit=_unit("order" if by_rows else unit),
        path=path,
        separator=layout.separator if layout else None,
        time_format=options.time_format,
        text=layout is not None and layout.format != "parquet",
        json=layout is not None and layout.format == "jsonl",
        notices=tuple(notices),
    )


def _unused(options: ReadOptions, label: str, layout: Layout | None) -> list[str]:
    """A line for each option of text that was given for a log that is none."""
    if layout is not None and layout.format not in ("parquet", "jsonl"):
        return []
    return [
        f"{label}: has no lines of fields, so the {name} that was given means nothing"
        for name in ("separator", "header", "quotes")
        if getattr(options, name) is not None
    ]


def _in_order(layout: Layout) -> bool:
    """Whether a layout has no times: lines of a user and items, or of a user and an item."""
    return layout.format == "sequences" or (layout.format == "text" and len(layout.columns) == 2)


def _unit(name: str | None) -> "TimeUnit | None":
    return cast("TimeUnit | None", name)  # ReadOptions lets no other through


def _named(options: ReadOptions, columns: Mapping[str, str]) -> Sequence[str]:
    asked = (options.user_column, options.item_column, options.timestamp_column, *columns.values())
    return [name for name in asked if name]


def collect_sorted(checked: CheckedLog) -> "pl.DataFrame":
    """Read a checked log into memory by the contract: sorted by user, then time, then place in the file."""
    with reading(checked.raw.label, checked.raw.path, checked.raw.separator):
        frame = convert(checked, others=True, key="__key").collect(engine="streaming")
    return frame.sort([USER, "__key"], maintain_order=True).drop("__key")


def kept_name(column: str) -> str:
    """Name in a converted log of a column that is kept as it stands."""
    return f"__column_{column}"


def convert(
    checked: CheckedLog,
    *,
    others: bool = False,
    key: str | None = None,
    zone: str | None = None,
    part: str | None = None,
    further: Sequence[str] = (),
) -> "pl.LazyFrame":
    """Apply a checked log's expressions.

    Args:
        checked: from `open_log`.
        others: also keep the file's other columns.
        key: name for a column that orders events at the file's own resolution; None for none.
        zone: column of the file to keep as text under the name ZONE; None for none.
        part: column of the file to keep as text under the name PART; None for none.
        further: columns of the file to keep as they stand, under the names that `kept_name` gives.
    """
    import polars as pl

    raw = checked.raw
    frame = raw.frame.with_row_index("__row") if checked.key is None else raw.frame
    place = pl.col("__row").cast(pl.Int64) if checked.key is None else checked.key
    last = (
        place.alias(POSITION)
        if checked.per_second is None
        else (place // checked.per_second).alias(TIMESTAMP)
    )
    chosen = [checked.user_id.alias(USER), checked.item_id.alias(ITEM), last]
    if key is not None:
        chosen.append(place.alias(key))
    for column, name in ((zone, ZONE), (part, PART)):
        if column is not None:
            chosen.append(pl.col(column).cast(pl.String).str.strip_chars().alias(name))
    chosen += [pl.col(name).alias(kept_name(name)) for name in further]
    if others:
        taken = {raw.user, raw.item, raw.time, USER, ITEM, TIMESTAMP, POSITION, key}
        chosen += [pl.col(name) for name in raw.frame.collect_schema().names() if name not in taken]
    return frame.select(chosen)
