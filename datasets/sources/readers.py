"""Read an interaction log: Parquet, CSV/TSV, MovieLens ``::``, RecBole ``.inter``, JSON lines, plain text.

Values stay lazy, so a log larger than memory can be prepared; the checks are streaming passes over it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.datasets.reading.logs import collect_sorted, convert, open_log
from recsys.datasets.sources.finding import known_path

if TYPE_CHECKING:
    import polars as pl


def scan_log(
    path: str | Path,
    *,
    format: str | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    timestamp_column: str | None = None,
    time_unit: str | None = None,
    separator: str | None = None,
    header: bool | None = None,
) -> "pl.LazyFrame":
    """Scan a log lazily with the contract's columns, in the file's order.

    Ids become int64 or text. Other columns follow under their own names.

    Args:
        path: of the file.
        format: of the file, see `recsys.datasets.reading.logs.open_log` for this and the next six.
        user_column: name of the user column.
        item_column: name of the item column.
        timestamp_column: name of the time column.
        time_unit: "s", "ms", "us", "ns" or "order".
        separator: between fields of a text log.
        header: whether the first line names columns.

    Returns:
        Lazy frame ``user_id``, ``item_id``, ``timestamp`` (or ``position``), others.

    Raises:
        ArgumentError: an option is unknown.
        DataError: the file cannot be read, lacks a column, or holds a bad value; one line says where.
    """
    checked = open_log(
        path,
        format=format,
        user_column=user_column,
        item_column=item_column,
        timestamp_column=timestamp_column,
        time_unit=time_unit,
        separator=separator,
        header=header,
    )
    return convert(checked, others=True)


def read_interactions(
    log: "str | Path | pl.DataFrame | pl.LazyFrame",
    *,
    format: str | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    timestamp_column: str | None = None,
    time_unit: str | None = None,
    separator: str | None = None,
    header: bool | None = None,
    notify: Callable[[str], None] | None = None,
) -> "pl.DataFrame":
    """Read a log into memory, sorted by user, then time, then place in the file.

    Ties of time keep the file's order; times finer than a second are sorted before they are cut to
    seconds.

    Args:
        log: path of a file, a known name such as ``ml-100k``, or a polars frame.
        format: of the file, see `recsys.datasets.reading.logs.open_log` for this and the next six.
        user_column: name of the user column.
        item_column: name of the item column.
        timestamp_column: name of the time column.
        time_unit: "s", "ms", "us", "ns" or "order".
        separator: between fields of a text log.
        header: whether the first line names columns.
        notify: receives one line where a known log comes from elsewhere than its official site.

    Returns:
        Frame ``user_id``, ``item_id``, ``timestamp`` (or ``position``), others.

    Raises:
        ArgumentError: an option is unknown.
        DataError: the log cannot be read, lacks a column, or holds a bad value; one line says where.
    """
    return collect_sorted(
        open_log(
            known_path(log, notify),
            format=format,
            user_column=user_column,
            item_column=item_column,
            timestamp_column=timestamp_column,
            time_unit=time_unit,
            separator=separator,
            header=header,
        )
    )
