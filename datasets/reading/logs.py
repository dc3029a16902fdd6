"""Open a log: find its columns, check their values, convert them. Nothing is held in memory."""

from pathlib import Path
from typing import TYPE_CHECKING

from recsys.datasets.collecting import reading
from recsys.datasets.reading.columns import scan_columns
from recsys.datasets.reading.text_formats import detect_layout, guess_roles
from recsys.datasets.reading.validate import CheckedLog, RawLog, check_log
from recsys.datasets.schema import (
    ITEM,
    POSITION,
    TIME_UNITS,
    TIMESTAMP,
    USER,
    TimeUnit,
    find_column,
    nearest,
)
from recsys.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import polars as pl


ZONE = "__zone"
"""Column of time zones in a converted log."""


def open_log(
    log: "str | Path | pl.DataFrame | pl.LazyFrame",
    *,
    format: str | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    timestamp_column: str | None = None,
    time_unit: str | None = None,
    separator: str | None = None,
    header: bool | None = None,
    zone_column: str | None = None,
) -> CheckedLog:
    """Open a log and check every value of its three columns.

    Args:
        log: path of a file, or a polars frame.
        format: "parquet", "csv", "inter", "jsonl", "movielens", "text", or None to recognize it.
        user_column: name of the user column, or None to find it by its usual spellings. Columns of a file
            without a header are ``column_1``, ``column_2``...
        item_column: name of the item column, likewise.
        timestamp_column: name of the time column, likewise.
        time_unit: of a numeric time column: "s", "ms", "us", "ns"; "order" for places in a user's sequence,
            or, where there is no time column, for the order of the file's rows; None expects seconds.
        separator: between the fields of a text file, or None to recognize it.
        header: whether the first line names columns, or None to recognize it.
        zone_column: name of a column with each event's time zone that has to be there too.

    Returns:
        The checked log with its expressions.

    Raises:
        ArgumentError: an option is unknown.
        DataError: the file cannot be read, lacks a column, or holds a bad value; one line says where.
    """
    import polars as pl

    if time_unit is not None and time_unit not in TIME_UNITS:
        raise ArgumentError(f"time_unit={time_unit!r} is not known: choose one of {', '.join(TIME_UNITS)}")
    unit: TimeUnit | None = time_unit
    roles: dict[str, str] = {}
    path, text_separator = None, None
    if isinstance(log, pl.DataFrame | pl.LazyFrame):
        frame, label = log.lazy(), "frame"
    else:
        path = Path(log).expanduser()
        label = str(log)
        layout = detect_layout(path, format=format, separator=separator, header=header)
        text_separator = layout.separator
        if layout.columns and not layout.header:
            roles = guess_roles(layout)
        if layout.format == "text" and len(layout.columns) == 2 and unit is None:
            unit = "order"
        named = [name for name in (user_column, item_column, timestamp_column, zone_column) if name]
        frame = scan_columns(path, layout, named)
    with reading(label, path, text_separator):
        columns = frame.collect_schema().names()
    if zone_column is not None:
        _choose(ZONE, zone_column, roles, columns, label)
    user = _choose(USER, user_column, roles, columns, label)
    item = _choose(ITEM, item_column, roles, columns, label)
    time: str | None = None
    if timestamp_column is not None or unit != "order":
        time = _choose(TIMESTAMP, timestamp_column, roles, columns, label)
    return check_log(
        RawLog(
            frame=frame,
            label=label,
            user=user,
            item=item,
            time=time,
            unit=unit,
            path=path,
            separator=text_separator,
        )
    )


def collect_sorted(checked: CheckedLog) -> "pl.DataFrame":
    """Read a checked log into memory by the contract: sorted by user, then time, then place in the file."""
    with reading(checked.raw.label, checked.raw.path, checked.raw.separator):
        frame = convert(checked, others=True, key="__key").collect(engine="streaming")
    return frame.sort([USER, "__key"], maintain_order=True).drop("__key")


def convert(
    checked: CheckedLog, *, others: bool = False, key: str | None = None, zone: str | None = None
) -> "pl.LazyFrame":
    """Apply a checked log's expressions.

    Args:
        checked: from `open_log`.
        others: also keep the file's other columns.
        key: name for a column that orders events at the file's own resolution; None for none.
        zone: column of the file to keep as text under the name ZONE; None for none.
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
    if zone is not None:
        chosen.append(pl.col(zone).cast(pl.String).str.strip_chars().alias(ZONE))
    if others:
        taken = {raw.user, raw.item, raw.time, USER, ITEM, TIMESTAMP, POSITION, key}
        chosen += [pl.col(name) for name in raw.frame.collect_schema().names() if name not in taken]
    return frame.select(chosen)


def _choose(role: str, asked: str | None, roles: dict[str, str], columns: list[str], label: str) -> str:
    flags = {USER: "--user-column", ITEM: "--item-column", TIMESTAMP: "--timestamp-column"}
    present = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
    if asked is not None:
        if asked in columns:
            return asked
        close = nearest(asked, columns)
        hint = f"; did you mean {close!r}?" if close else ""
        raise DataError(f"{label}: no column {asked!r}; the columns are {present}{hint}")
    found = roles.get(role) or find_column(role, columns)
    if found is not None:
        return found
    close = nearest(role, columns)
    hint = f", perhaps {close}" if close else ""
    also = ", or pass --time-unit order to take the order of the rows" if role == TIMESTAMP else ""
    raise DataError(f"{label}: no {role} column among {present}; name it with {flags[role]}{hint}{also}")
