"""Run a polars query on a log and turn its failures into one line that names the file."""

import csv
import errno
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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


def open_text(path: Path) -> BinaryIO | gzip.GzipFile:
    """Open a text log for bytes, through gzip where its name ends in ``.gz``."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _explain(label: str, message: str, path: Path | None, separator: str | None) -> str:
    first_line = message.strip().splitlines()[0] if message.strip() else "unknown failure"
    if path is not None and "utf" in message.lower():
        row = _undecodable_line(path)
        where = f"line {row} is" if row else "it is"
        return f"{label}: {where} not UTF-8 text; convert the file, for example with iconv -f latin1 -t utf-8"
    if path is not None and separator is not None and "more fields" in message:
        found = _wide_row(path, separator)
        if found:
            line, fields, expected = found
            return (
                f"{label}: line {line} has {fields} fields, the first line {expected};"
                f" quote fields that hold {separator!r} or name another --separator"
            )
    if "parquet" in message.lower():
        return f"{label}: the Parquet file is damaged or cut off ({first_line}); fetch or write it again"
    return f"{label}: cannot be read ({first_line})"


def _undecodable_line(path: Path) -> int | None:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None


def _wide_row(path: Path, separator: str) -> tuple[int, int, int] | None:
    with open_text(path) as file:
        lines = (line.decode("utf-8", "replace") for line in file)
        rows = csv.reader(lines, delimiter=separator)
        expected = None
        for row in rows:
            expected = expected or len(row)
            if len(row) > expected:
                return rows.line_num, len(row), expected
    return None
