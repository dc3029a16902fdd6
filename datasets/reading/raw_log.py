"""A log before its values are looked at, and the two questions that checks ask of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.datasets.collecting import reading
from recsys.datasets.schema import TimeUnit

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLog:
    """A log before its values are looked at.

    Attributes:
        frame: lazy, all columns as the file has them.
        label: the file as messages name it.
        user, item: names of the id columns.
        time: name of the time column, or None where the order of rows is the order of events.
        unit: of a numeric time column; None to expect seconds and refuse what looks finer.
        path: the text file behind the frame, if there is one.
        separator: of that file.
        time_format: of a time column, as strptime writes it.
        text: whether the frame is parsed from text anew at each pass.
        json: whether the text is JSON, in which a value may be an object or a list.
        notices: lines worth showing: what was guessed.
    """

    frame: "pl.LazyFrame"
    label: str
    user: str
    item: str
    time: str | None
    unit: TimeUnit | None
    path: "Path | None" = None
    separator: str | None = None
    time_format: str | None = None
    text: bool = False
    json: bool = False
    notices: tuple[str, ...] = ()


def ask(raw: RawLog, asked: "list[pl.Expr]") -> dict[str, Any]:
    """Collect one row of facts about a log."""
    with reading(raw.label, raw.path, raw.separator):
        return raw.frame.select(asked).collect(engine="streaming").row(0, named=True)


def first_row(raw: RawLog, column: str, bad: "pl.Expr") -> tuple[int, Any]:
    """1-based data row and value of the first row for which ``bad`` is true or null."""
    import polars as pl

    frame = raw.frame.select(column).with_row_index("row", offset=1).filter(bad.fill_null(True)).head(1)
    with reading(raw.label, raw.path, raw.separator):
        found = frame.select(pl.col("row"), pl.col(column)).collect().row(0)
    return int(found[0]), found[1]
