"""Run a polars query on a log and turn its failures into one line that names the file."""

import csv
import errno
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.datasets.reading.contents import open_text
from recsys.datasets.reading.text_formats import not_utf8
from recsys.errors import DataError
from recsys.forks import need_polars


@contextmanager
def reading(label: str, path: Path | None = None, separator: str | None = None) -> Iterator[None]:
    """Translate what polars raises inside the block.

    Args:
        label: the file as the message shall name it.
        path: the text file, where there is one: it is searched for the row at fault.
        separator: its one-character separator, where it has one.

    Raises:
        DataError: the file cannot be read or decoded, or has a row of another width than the others.
        OSError: the disk is full (ENOSPC).
        RunError: a forked process, in which polars would wait for ever.
    """
    import polars as pl

    need_polars(label)
    try:
        yield
    except pl.exceptions.PolarsError as error:
        if "no space left" in str(error).lower():
            raise OSError(errno.ENOSPC, "No space left on device") from None
        raise DataError(_explain(label, str(error), path, separator)) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise DataError(_explain(label, str(error), path, separator)) from None


def _explain(label: str, message: str, path: Path | None, separator: str | None) -> str:
    first_line = message.strip().splitlines()[0] if message.strip() else "unknown failure"
    if path is not None and "utf" in message.lower():
        row = _undecodable_line(path)
        return not_utf8(label, f"line {row}" if row else "it")
    uneven = any(words in message for words in ("more fields", "did not find column", "missing_columns"))
    if path is not None and separator is not None and uneven:
        if found := _uneven_row(path, separator, operator.gt):
            return f"{label}: {found}; quote fields that hold {separator!r} or name another separator="
        if found := _uneven_row(path, separator, operator.lt):
            return f"{label}: {found}; write every field, an empty one too, or take its name from the header"
    if path is not None and separator is not None and ("malformed" in message or "parse" in message):
        stray = _stray_quote(path, separator)
        where = f"line {stray} has" if stray else "there is"
        return (
            f"{label}: {where} a quotation mark that opens or closes no field;"
            " pass quotes=False if the file quotes nothing"
        )
    if path is None and ("schema" in message.lower() or "column" in message.lower()):
        return f"{label}: its parts do not have the same columns ({first_line}); pass those alike"
    if "parquet" in message.lower():
        return f"{label}: the Parquet file is damaged or cut off ({first_line}); fetch or write it again"
    return f"{label}: cannot be read ({first_line})"


def _stray_quote(path: Path, separator: str) -> int | None:
    """The first line in which a quotation mark stands elsewhere than around a field."""
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            for field in line.decode("utf-8", "replace").strip("\r\n").split(separator):
                inside = field[1:-1] if len(field) > 1 and field[0] == field[-1] == '"' else field
                if '"' in inside.replace('""', ""):
                    return number
    return None


def _undecodable_line(path: Path) -> int | None:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None


def _uneven_row(path: Path, separator: str, differs: Callable[[int, int], bool]) -> str | None:
    """The first row whose number of fields differs so from the first line's, in words."""
    with open_text(path) as file:
        lines = (line.decode("utf-8", "replace") for line in file)
        rows = csv.reader(lines, delimiter=separator)
        expected = None
        for row in rows:
            expected = expected or len(row)
            if row and differs(len(row), expected):
                return f"line {rows.line_num} has {len(row)} fields, the first line {expected}"
    return None
