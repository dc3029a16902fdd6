"""Recognize the format of a log from its name and first lines."""

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from recsys.datasets.reading.contents import decoding, open_text, refuse_foreign
from recsys.datasets.reading.options import ReadOptions
from recsys.datasets.schema import ITEM, TIMESTAMP, USER, find_column
from recsys.errors import ArgumentError, DataError

Format = Literal["parquet", "csv", "inter", "jsonl", "movielens", "text", "sequences"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "inter", "jsonl", "movielens", "text", "sequences")

_HEAD_BYTES = 65_536
_MOST_HEAD_BYTES = 2**26
_HEAD_LINES = 3
_SAMPLE = 50
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
_NO_LOGS = (".yaml", ".yml", ".toml", ".ini", ".cfg", ".py", ".md", ".rst", ".html", ".xml", ".ipynb")
_WHOLE = re.compile(r"^\d{1,18}$")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a log is written.

    Attributes:
        format: one of `FORMATS`.
        separator: between fields of a text format; None for Parquet, JSON lines and any white space.
        header: whether the first line names the columns.
        columns: names of the columns of a text format; ``column_1``... where the file names none.
        first_row: the first data row as text, empty where there is none.
        quoted: whether fields may stand in double quotes.
        skip: lines before the first data row: the header, and blank ones.
        types: RecBole's type of each column ("token_seq", ...), of a file that states them.
    """

    format: Format
    separator: str | None = None
    header: bool = False
    columns: tuple[str, ...] = ()
    first_row: tuple[str, ...] = ()
    quoted: bool = True
    skip: int = 0
    types: tuple[str, ...] = ()


def detect_layout(path: Path, options: ReadOptions) -> Layout:
    """Look at a file's name and first lines.

    Args:
        path: an existing file; text is read through gzip or zstd where its first bytes say so.
        options: what is known of it: format, separator, header, quotes.

    Raises:
        ArgumentError: the format is unknown.
        DataError: the file is a directory, missing, empty, not UTF-8, of another kind, or has one column
            only; one line says what to do.
    """
    if options.format is not None and options.format not in FORMATS:
        raise ArgumentError(f"format={options.format!r} is not known: choose one of {', '.join(FORMATS)}")
    check_file(path)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    suffix = suffixes[-1] if suffixes else ""
    head = _head(path)
    if head.startswith(b"PAR1"):
        if options.format not in (None, "parquet"):
            raise DataError(f"{path}: is a Parquet file, not {options.format}; leave out format=")
        return Layout("parquet")
    refuse_foreign(path, head, encoding=options.encoding)
    if options.format == "parquet" or (options.format is None and suffix in (".parquet", ".pq")):
        remedy = "leave out format=" if options.format else "fetch or write it again"
        raise DataError(f"{path}: not a Parquet file (it does not begin with PAR1); {remedy}")
    if options.format is None and suffix in _NO_LOGS:
        raise DataError(f"{path}: a {suffix} file is no log; pass format='csv' if it holds one")
    places, lines = _text_lines(path, head)
    kind = options.format or _SUFFIXES.get(suffix) or _recognize(path, lines, options)
    if kind == "jsonl":
        return Layout("jsonl", skip=places[0])
    if kind == "sequences":
        separator = options.separator or ("," if "," in lines[0] else None)
        return Layout("sequences", separator, skip=places[0])
    layout = _fields_layout(path, lines, kind, options)
    return replace(layout, skip=places[1 if layout.header else 0])


def _fields_layout(path: Path, lines: list[str], kind: Format, options: ReadOptions) -> Layout:
    """The layout of text with an event a line."""
    separator = options.separator
    if separator is None:
        separator = {"inter": "\t", "movielens": "::"}.get(kind) or _sniff_separator(lines)
    if separator == " " and any("  " in line.strip() for line in lines[:_SAMPLE]):
        raise DataError(f"{path}: its fields stand apart by several blanks; write one with tr -s ' '")
    quoted = _is_quoted(kind, separator, lines[0], options.quotes)
    rows = [_fields(line, separator, quoted) for line in lines[:_HEAD_LINES]]
    if len(rows[0]) < 2:
        guess = _sniff_separator(lines)
        more = len(_fields(lines[0], guess, quoted)) > 1
        hint = f"pass separator={guess!r}" if more else "pass separator="
        raise DataError(f"{path}: only one column found ({lines[0][:60]!r}); {hint}")
    header = options.header
    if header is None:
        header = kind == "inter" or _has_header(rows)
    if header and len(rows) < 2:
        raise DataError(f"{path}: the file has a header and no rows; nothing can be read")
    if header:
        names = [name.strip() for name in rows[0]]
        columns = tuple(name.split(":")[0] if kind == "inter" else name for name in names)
        types = tuple(name.partition(":")[2] for name in names) if kind == "inter" else ()
        return Layout(kind, separator, True, columns, tuple(rows[1]), quoted, types=types)
    if separator == " " and rows[0][0].endswith(":") and options.format is None:
        raise DataError(f"{path}: looks like YAML ({lines[0][:60]!r}), not a log; pass the log file")
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
        what = (
            "a prepared dataset" if (path / "meta.json").is_file() else "a directory without .parquet files"
        )
        raise DataError(f"{path}: is {what}, not a log; {remedy}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; check the path") from None
    if size == 0:
        raise DataError(f"{path}: the file is empty; nothing can be read")


def guess_roles(layout: Layout) -> dict[str, str]:
    """Which columns of a file without a header are the user, the item and the time.

    The first two are user and item. The last of three or more is the time if its first value looks like
    one (a number of at least 10^8, or a date); MovieLens's and Amazon's files are laid out so. Where the
    second column looks like a time, which one is the item cannot be told, and none is guessed.
    """
    roles = {USER: layout.columns[0]}
    if _looks_like_time(layout.first_row[1]):
        roles[TIMESTAMP] = layout.columns[1]
        return roles
    roles[ITEM] = layout.columns[1]
    if len(layout.columns) > 2 and _looks_like_time(layout.first_row[-1]):
        roles[TIMESTAMP] = layout.columns[-1]
    return roles


def _head(path: Path) -> bytes:
    """The first 64 KiB, or more where the first lines are longer."""
    with decoding(path), open_text(path) as file:
        head = file.read(_HEAD_BYTES)
        while head.count(b"\n") < _HEAD_LINES and len(head) < _MOST_HEAD_BYTES and b"\0" not in head[:1024]:
            more = file.read(len(head))
            if not more:
                break
            head += more
    return head


def _text_lines(path: Path, head: bytes) -> tuple[list[int], list[str]]:
    """The lines of a head that are not blank, and their places among all."""
    cut = head.rfind(b"\n")
    whole = head[: cut + 1] if len(head) >= _HEAD_BYTES and cut > 0 else head
    try:
        text = whole.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = whole[: error.start].count(b"\n") + 1
        raise DataError(not_utf8(str(path), f"line {line}")) from None
    if "\0" in text and not text[1::2].strip("\0"):
        raise DataError(f"{path}: is UTF-16 text without a mark; pass encoding='utf-16-le'")
    if "\0" in text:
        raise DataError(f"{path}: is a binary file of an unknown kind; pass a Parquet or text log")
    if "\n" not in text.strip() and "\r" in text.strip():
        raise DataError(f"{path}: its lines end in a carriage return alone; convert it with tr '\\r' '\\n'")
    every = [line.rstrip("\r") for line in text.split("\n")]
    places = [place for place, line in enumerate(every) if line.strip()]
    lines = [every[place] for place in places]
    if not lines:
        raise DataError(f"{path}: the file is empty; nothing can be read")
    return places, lines


def not_utf8(label: str, where: str) -> str:
    """The message for text of another encoding, which only its owner can name."""
    return (
        f"{label}: {where} is not UTF-8 text; name its encoding with encoding=, for example"
        " latin-1, cp1252 or gbk"
    )


def _recognize(path: Path, lines: list[str], options: ReadOptions) -> Format:
    first, separator = lines[0], options.separator
    start = first.lstrip()
    if start.startswith("{"):
        return "jsonl"
    if start.startswith("["):
        raise DataError(f"{path}: is a JSON array; write one JSON object per line")
    if separator == "::" or (separator is None and "::" in first):
        return "movielens"
    if _TYPED.match(first):
        return "inter"
    if separator is None and not options.header and _is_sequences(lines[:_SAMPLE]):
        return "sequences"
    if separator in (None, " ") and len(first.split(" ")) == 2 and not set(first) & set("\t,;|"):
        return "text"
    return "csv"


def _is_sequences(lines: list[str]) -> bool:
    """Whether each line is a user with items: whole numbers, of uneven count or too many for one event."""
    comma = all("," in line for line in lines)
    rows = [line.split(",") if comma else line.split() for line in lines]
    if not all(_WHOLE.match(token.strip()) for row in rows for token in row):
        return False
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        return max(widths) > 2
    return not comma and max(widths) >= 5 and not any(_looks_like_time(token) for token in rows[0])


def _is_quoted(kind: Format, separator: str, first: str, asked: bool | None) -> bool:
    """Whether fields may stand in double quotes.

    RecBole and MovieLens write titles with stray quotes and never quote a field; nor do those who separate
    by tabs, unless the first field of the file is quoted.
    """
    if asked is not None:
        return asked and len(separator.encode()) == 1
    if kind != "csv" or len(separator.encode()) > 1 or separator == " ":
        return False
    return separator != "\t" or first.startswith('"')


def _sniff_separator(lines: list[str]) -> str:
    """The separator that gives all sampled lines the same number of fields, at least two."""
    sample = lines[:_SAMPLE]
    for separator in _SEPARATORS:
        widths = {len(_fields(line, separator, True)) for line in sample}
        if len(widths) == 1 and widths.pop() > 1:
            return separator
    return max(_SEPARATORS, key=lambda separator: lines[0].count(separator))


def _fields(line: str, separator: str, quoted: bool) -> list[str]:
    if len(separator.encode()) > 1 or not quoted:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:  # a carriage return inside the line
        return line.split(separator)


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
    return bool(
        re.match(r"^\d{4}[-/]\d{1,2}[-/]\d|^\d{1,2}/\d{1,2}/\d{4}|^[A-Z][a-z]{2} [A-Z][a-z]{2} \d", text)
    )
