"""Scan the columns of a log file as they stand: all text, except in Parquet, which has types."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recsys.datasets.collecting import reading
from recsys.datasets.reading.parquet_parts import has_hive_columns
from recsys.datasets.reading.text_formats import Layout
from recsys.datasets.schema import ITEM, USER
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

# A control character that no log holds: the whole line becomes one field.
_NO_SEPARATOR = "\x1f"
_LINE = "line"


def scan_columns(path: Path, layout: Layout, named: Sequence[str] = ()) -> "pl.LazyFrame":
    """Scan a file's columns as they are: all text, except in Parquet. Names are names, not patterns.

    Args:
        path: the file.
        layout: from `recsys.datasets.reading.text_formats.detect_layout`.
        named: keys to take from JSON lines besides those of the first line.
    """
    import polars as pl

    if layout.format == "parquet":
        return pl.scan_parquet(path, glob=False)
    if layout.format == "sequences":
        return _scan_sequences(path, layout)
    if layout.format == "jsonl":
        return _scan_json_lines(path, layout, named)
    assert layout.separator is not None
    names = _distinct(layout.columns)
    if len(layout.separator.encode()) > 1:
        lines = _scan_lines(path, layout.skip)
        fields = pl.col(_LINE).str.split_exact(layout.separator, len(names) - 1)
        return lines.select(fields.struct.rename_fields(names).struct.unnest())
    frame = pl.scan_csv(
        path,
        glob=False,
        separator=layout.separator,
        # By place, the first line left out: from polars 2 on a header and a schema are matched by name, and
        # the names here are our own spelling.
        has_header=False,
        skip_rows=layout.skip,
        schema=dict.fromkeys(names, pl.String),
        quote_char='"' if layout.quoted else None,
    )
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))


def _scan_lines(path: Path, skip: int) -> "pl.LazyFrame":
    import polars as pl

    frame = pl.scan_csv(
        path,
        glob=False,
        separator=_NO_SEPARATOR,
        has_header=False,
        schema={_LINE: pl.String},
        quote_char=None,
        skip_rows=skip,
    )
    return frame.filter(pl.col(_LINE).str.strip_chars().str.len_bytes() > 0)


def scan_parts(parts: Sequence[Path]) -> "pl.LazyFrame":
    """Scan the Parquet files of one log, one after the other; folders named column=value become columns."""
    import polars as pl

    return pl.scan_parquet(list(parts), glob=False, hive_partitioning=has_hive_columns(tuple(parts)))


def _scan_sequences(path: Path, layout: Layout) -> "pl.LazyFrame":
    """Lines of a user and the items in their order, as an event a row."""
    import polars as pl

    line = pl.col(_LINE).str.strip_chars()
    separator = layout.separator
    if separator is None:
        separator, line = " ", line.str.replace_all(r"\s+", " ")
    fields = line.str.split(separator)
    events = _scan_lines(path, layout.skip).select(
        fields.list.first().alias(USER), fields.list.slice(1).alias(ITEM)
    )
    return exploded(events, ITEM).filter(pl.col(ITEM) != "")


Frame = TypeVar("Frame", "pl.DataFrame", "pl.LazyFrame")


def exploded(frame: Frame, column: str) -> Frame:
    """A row for each element of a column of lists; rows of empty ones and of null are left out."""
    import polars as pl

    # Polars 2 asks what an empty list becomes; there is none.
    asked = inspect.signature(pl.LazyFrame.explode).parameters
    empty: dict[str, Any] = {"empty_as_null": True} if "empty_as_null" in asked else {}
    return frame.filter(pl.col(column).list.len() > 0).explode(column, **empty)


def _scan_json_lines(path: Path, layout: Layout, named: Sequence[str]) -> "pl.LazyFrame":
    """Take the asked keys, or those of the first line, out of each line as text."""
    import polars as pl

    lines = _scan_lines(path, layout.skip)
    with reading(str(path), path):
        first = lines.head(1).collect().item()
    try:
        keys = list(json.loads(first))
    except ValueError as error:
        raise DataError(f"{path}: line 1 is not a JSON object ({error}); write one per line") from None
    keys += [name for name in named if name not in keys]
    fields = [pl.col(_LINE).str.json_path_match(_json_path(key)).alias(key) for key in keys]
    return lines.select(fields)


def _json_path(key: str) -> str:
    escaped = key.replace("\\", "\\\\").replace("'", "\\'")
    return f"$['{escaped}']"


def _distinct(names: tuple[str, ...]) -> list[str]:
    """Give repeated and empty column names a number, so that every column can be named."""
    seen: dict[str, int] = {}
    distinct = []
    for place, name in enumerate(names, start=1):
        wanted = name or f"column_{place}"
        seen[wanted] = seen.get(wanted, 0) + 1
        distinct.append(wanted if seen[wanted] == 1 else f"{wanted}_{seen[wanted]}")
    return distinct
