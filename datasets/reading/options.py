"""How a log is to be read: each option once, for functions, commands and meta.json."""

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from recsys.datasets.keywords import check_types, option
from recsys.datasets.schema import TIME_UNITS
from recsys.errors import ArgumentError

__all__ = ["ReadKeywords", "ReadOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How to read a log; None finds it out.

    Attributes:
        format: "parquet", "csv", "inter", "jsonl", "movielens", "text" or "sequences".
        user_column: name of the user column. Columns of a file without a header are ``column_1``...
        item_column: name of the item column.
        timestamp_column: name of the time column.
        time_unit: of a numeric time column: "s", "ms", "us", "ns"; "order" for places in a user's sequence,
            or, where there is no time column, for the order of the rows; None expects seconds.
        separator: between the fields of a text log.
        header: whether the first line of a text log names columns.
        time_format: of a text or numeric time column, as strptime writes it: ``%Y%m%d``.
        quotes: whether fields of a text log may stand in double quotes.
        encoding: of a text log that is not UTF-8, as Python names it: ``latin-1``, ``gbk``, ``utf-16``.

    Raises:
        ArgumentError: an option is unknown or contradicts another.
    """

    format: str | None = option(
        None, "Format, if the name misleads: parquet, csv, inter, jsonl, movielens, text or sequences."
    )
    user_column: str | None = option(None, "Column of user ids.")
    item_column: str | None = option(None, "Column of item ids.")
    timestamp_column: str | None = option(None, "Column of times, or of positions.")
    time_unit: str | None = option(None, "s, ms, us or ns; order if the column only orders events.")
    separator: str | None = option(None, "Field separator of a text log.")
    header: bool | None = option(None, "Whether the first line of text names columns; found out if left out.")
    time_format: str | None = option(
        None, "Format of dates as strptime writes it, e.g. %Y%m%d or '%m/%d/%Y %I:%M:%S %p'."
    )
    quotes: bool | None = option(
        None, "Whether text fields may stand in double quotes; found out if left out."
    )
    encoding: str | None = option(None, "Encoding of a text log that is not UTF-8: latin-1, gbk, utf-16...")

    def __post_init__(self) -> None:
        check_types(self)
        if self.time_format == "":
            raise ArgumentError(
                "time_format='' is no format: write it as strptime does, for example %Y-%m-%d"
            )
        if self.time_unit is not None and self.time_unit not in TIME_UNITS:
            raise ArgumentError(
                f"time_unit={self.time_unit!r} is not known: choose one of {', '.join(TIME_UNITS)}"
            )
        if self.time_format is not None and self.time_unit is not None:
            raise ArgumentError(
                f"time_format={self.time_format!r} and time_unit={self.time_unit!r}: a date has no unit;"
                " pass one of the two"
            )
        if self.separator == "":
            raise ArgumentError("separator='' separates nothing: give the character between two fields")
        if self.encoding is not None:
            _check_encoding(self.encoding)

    def record(self) -> dict[str, Any]:
        """As meta.json holds them: of those that came later only what was asked for."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value is not None or name in _FIRST}


class ReadKeywords(TypedDict, total=False):
    """The fields of `ReadOptions` as keywords."""

    format: str | None
    user_column: str | None
    item_column: str | None
    timestamp_column: str | None
    time_unit: str | None
    separator: str | None
    header: bool | None
    time_format: str | None
    quotes: bool | None
    encoding: str | None


# What meta.json has always held; data prepared by earlier versions must compare equal.
_FIRST = ("format", "user_column", "item_column", "timestamp_column", "time_unit", "separator", "header")


def _check_encoding(name: str) -> None:
    try:
        "".encode(name)
    except LookupError:
        raise ArgumentError(
            f"encoding={name!r} is not known: write it as Python does, e.g. latin-1"
        ) from None
