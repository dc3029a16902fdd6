"""Recognize the format of a log from its name and first lines."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recsys.datasets.collecting import open_text
from recsys.datasets.schema import ITEM, TIMESTAMP, USER, find_column
from recsys.errors import ArgumentError, DataError

Format = Literal["parquet", "csv", "inter", "jsonl", "movielens", "text"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "inter", "jsonl", "movielens", "text")

_HEAD_BYTES = 65_536
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".inter": "inter",
    ".item": "inter",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_TYPED = re.compile(r"^[^\t:]+:(token|token_seq|float|float_seq)(\t|$)")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_SEPARATORS = ("\t", ",", ";", "|", " ")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a log is written.

    Attributes:
        format: one of `FORMATS`.
        separator: between fields of a text format; None for Parquet and JSON lines.
        header: whether the first line names the columns.
        columns: names of the columns of a text format; ``column_1``... where the file names none.
        first_row: the first data row as text, empty where there is none.
        quoted: whether fields may stand in double quotes.
    """

    format: Format
    separator: str | None = None
    header: bool = False
    columns: tuple[str, ...] = ()
    first_row: tuple[str, ...] = ()
    quoted: bool = True


def detect_layout(
    path: Path, *, format: str | None = None, separator: str | None = None, header: bool | None = None
) -> Layout:
    """Look at a file's name and first 64 KiB.

    Args:
        path: an existing file; ``.gz`` text is read through gzip.
        format: one of `FORMATS`, or None to recognize it.
        separator: between fields, or None to recognize it.
        header: whether the first line names columns, or None to recognize it.

    Raises:
        ArgumentError: ``format`` is unknown.
        DataError: the file is a directory, missing, empty, not UTF-8, or has one column only.
    """
    if format is not None and format not in FORMATS:
        raise ArgumentError(f"format={format!r} is not known: choose one of {', '.join(FORMATS)}")
    check_file(path)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    with open_text(path) as file:
        try:
            head = file.read(_HEAD_BYTES)
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from None
    if format == "parquet" or head.startswith(b"PAR1") or (format is None and suffix in (".parquet", ".pq")):
        if not head.startswith(b"PAR1"):
            raise DataError(f"{path}: not a Parquet file (it does not begin with PAR1); pass --format")
        return Layout("parquet")
    lines = _text_lines(path, head)
    first = lines[0]
    kind = format or _SUFFIXES.get(suffix.lower()) or _recognize(path, first, separator)
    if kind == "jsonl":
        return Layout("jsonl")
    if separator is None:
        separator = {"inter": "\t", "movielens": "::"}.get(kind) or _sniff_separator(lines)
    # RecBole and MovieLens write titles with stray quotes and never quote a field.
    quoted = kind == "csv" and len(separator) == 1 and separator != " "
    rows = [_fields(line, separator, quoted) for line in lines[:3]]
    if len(rows[0]) < 2:
        guess = _sniff_separator(lines)
        hint = f"pass --separator {guess!r}" if len(_fields(first, guess, quoted)) > 1 else "pass --separator"
        raise DataError(f"{path}: only one column found ({first[:60]!r}); {hint}")
    if header is None:
        header = kind == "inter" or _has_header(rows)
    if header and len(rows) < 2:
        raise DataError(f"{path}: the file has a header and no rows; nothing can be read")
    if header:
        columns = tuple(name.strip().split(":")[0] if kind == "inter" else name.strip() for name in rows[0])
        return Layout(kind, separator, True, columns, tuple(rows[1]), quoted)
    columns = tuple(f"column_{place}" for place in range(1, len(rows[0]) + 1))
    return Layout(kind, separator, False, columns, tuple(rows[0]), quoted)


def check_file(path: Path) -> None:
    """Refuse a path that is no readable, filled file.

    Raises:
        DataError: it is missing, a directory, or empty.
    """
    if path.is_dir():
        inside = next(
            (name for name in ("u.data", "ratings.dat", "ratings.csv") if (path / name).is_file()), ""
        )
        remedy = f"pass {path / inside}" if inside else "pass the log file inside it"
        raise DataError(f"{path}: is a directory, not a log; {remedy}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; check the path") from None
    if size == 0:
        raise DataError(f"{path}: the file is empty")


def guess_roles(layout: Layout) -> dict[str, str]:
    """Which columns of a file without a header are the user, the item and the time.

    The first two are user and item. The last of three or more is the time if its first value looks like
    one (a number of at least 10^8, or a date); MovieLens's and Amazon's files are laid out so.
    """
    roles = {USER: layout.columns[0], ITEM: layout.columns[1]}
    if len(layout.columns) > 2 and _looks_like_time(layout.first_row[-1]):
        roles[TIMESTAMP] = layout.columns[-1]
    return roles


def _text_lines(path: Path, head: bytes) -> list[str]:
    cut = head.rfind(b"\n")
    whole = head[: cut + 1] if len(head) == _HEAD_BYTES and cut > 0 else head
    try:
        text = whole.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = whole[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}: line {line} is not UTF-8 text; convert it, for example with iconv -f latin1 -t utf-8"
        ) from None
    if "\0" in text:
        raise DataError(f"{path}: is a binary file of an unknown kind; pass a Parquet or text log")
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path}: the file is empty")
    return lines


def _recognize(path: Path, first: str, separator: str | None) -> Format:
    start = first.lstrip()
    if start.startswith("{"):
        return "jsonl"
    if start.startswith("["):
        raise DataError(f"{path}: is a JSON array; write one JSON object per line")
    if separator == "::" or (separator is None and "::" in first):
        return "movielens"
    if _TYPED.match(first):
        return "inter"
    if separator in (None, " ") and len(first.split(" ")) == 2 and not set(first) & set("\t,;|"):
        return "text"
    return "csv"


def _sniff_separator(lines: list[str]) -> str:
    """The separator that gives all sampled lines the same number of fields, at least two."""
    sample = lines[:50]
    for separator in _SEPARATORS:
        widths = {len(_fields(line, separator, True)) for line in sample}
        if len(widths) == 1 and widths.pop() > 1:
            return separator
    return max(_SEPARATORS, key=lambda separator: lines[0].count(separator))


def _fields(line: str, separator: str, quoted: bool) -> list[str]:
    if len(separator) > 1 or not quoted:
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator))


def _has_header(rows: list[list[str]]) -> bool:
    first = [field.strip() for field in rows[0]]
    if any(find_column(role, [field]) for role in (USER, ITEM, TIMESTAMP) for field in first):
        return True
    if any(_NUMBER.match(field) for field in first) or len(rows) < 2:
        return False
    return any(_NUMBER.match(field.strip()) for field in rows[1])


def _looks_like_time(value: str) -> bool:
    text = value.strip()
    if _NUMBER.match(text):
        return float(text) >= 1e8
    return bool(re.match(r"^\d{4}-\d{2}-\d{2}|^[A-Z][a-z]{2} [A-Z][a-z]{2} \d", text))
