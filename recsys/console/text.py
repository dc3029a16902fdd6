"""Text that stays in its line: tables of padded columns, and messages without line breaks.

A table is plain text: no markup is read in it, nothing is cut off, and a row is a line, so that a pipe, a log
and a terminal of any width show the same.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

WIDTH = 80
"""Columns of a plain terminal: what a table should not exceed if it can be helped."""

# C0 and C1 controls, and the separators that end a line: a name that holds one must not move the cursor.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    """The text with control characters and line breaks written as escapes."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """A message as one line: line breaks and what surrounds them become a space, other controls escapes."""
    return printable(" ".join(part.strip() for part in text.splitlines() if part.strip()))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, left: Sequence[str] = ()) -> str:
    """Lay out rows as lines of columns, two spaces apart.

    Args:
        headers: names of the columns.
        rows: cells, as many as headers each; written by `str`.
        left: headers of the columns that are aligned to the left; the others to the right.

    Returns:
        Lines without trailing spaces: the headers, then a line per row.
    """
    lines = [[printable(str(cell)) for cell in row] for row in (headers, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths, [name in left for name in headers]) for cells in lines)


def keyed_table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, fixed: Sequence[str], meaning: str
) -> str:
    """As `table`; where names make it wider than `WIDTH`, columns have numbers, which lines above explain.

    Args:
        headers: names of the columns.
        rows: cells, aligned to the right.
        fixed: headers that keep their names.
        meaning: what the other columns are, in front of the explaining lines.
    """
    rows = list(rows)
    found = table(headers, rows)
    if max(map(_width, found.splitlines())) <= WIDTH:
        return found
    names = [name for name in headers if name not in fixed]
    keys = {name: str(number) for number, name in enumerate(names, 1)}
    explained = [f"{meaning} {keys[name]}: {printable(name)}" for name in names]
    return "\n".join([*explained, table([keys.get(name, name) for name in headers], rows)])


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = (
        cell + " " * (width - _width(cell)) if to_left else " " * (width - _width(cell)) + cell
        for cell, width, to_left in zip(cells, widths, left, strict=True)
    )
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Columns that a terminal gives the text: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
