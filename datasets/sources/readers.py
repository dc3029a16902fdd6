"""Read an interaction log: Parquet, CSV/TSV, MovieLens ``::``, RecBole ``.inter``, JSON lines, plain text.

Values stay lazy and the checks are streaming passes over them; what a store is made of, some tens of bytes an
event, has to fit into memory.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from recsys.datasets.keywords import refuse_unknown, takes
from recsys.datasets.reading.logs import collect_sorted, convert, open_log
from recsys.datasets.reading.options import ReadKeywords, ReadOptions
from recsys.datasets.sources.finding import is_known, known_path

if TYPE_CHECKING:
    import polars as pl


@takes(ReadOptions)
def scan_log(path: str | Path, **options: Unpack[ReadKeywords]) -> "pl.LazyFrame":
    """Scan a log lazily with the contract's columns, in the file's order.

    Ids become int64 or text. Other columns follow under their own names.

    Args:
        path: of the file, or of a folder of Parquet parts.
        options: the fields of `recsys.datasets.reading.options.ReadOptions`.

    Returns:
        Lazy frame ``user_id``, ``item_id``, ``timestamp`` (or ``position``), others.

    Raises:
        ArgumentError: an option is unknown.
        DataError: the file cannot be read, lacks a column, or holds a bad value; one line says where.
    """
    refuse_unknown(options, ReadOptions)
    return convert(open_log(path, ReadOptions(**options)), others=True)


@takes(ReadOptions)
def read_interactions(
    log: Any, *, notify: Callable[[str], None] | None = None, **options: Unpack[ReadKeywords]
) -> "pl.DataFrame":
    """Read a log into memory, sorted by user, then time, then place in the file.

    Ties of time keep the file's order; times finer than a second are sorted before they are cut to
    seconds.

    Args:
        log: path of a file or of a folder of Parquet parts, a known name such as ``ml-100k``, or a log in
            memory (polars, pandas, Arrow, numpy, mappings of columns, lists of rows; see
            `recsys.datasets.reading.frames.as_frame`).
        notify: receives a line where a known log comes from elsewhere than its official site, or something
            about the log was guessed.
        options: the fields of `recsys.datasets.reading.options.ReadOptions`.

    Returns:
        Frame ``user_id``, ``item_id``, ``timestamp`` (or ``position``), others.

    Raises:
        ArgumentError: an option is unknown.
        DataError: the log cannot be read, lacks a column, or holds a bad value; one line says where.
    """
    refuse_unknown(options, ReadOptions)
    checked = open_log(known_path(log, notify), ReadOptions(**options))
    if notify is not None and not is_known(log):
        for notice in checked.notices:
            notify(notice)
    return collect_sorted(checked)
