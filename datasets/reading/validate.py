"""Look at every value of a log once and refuse what would spoil it, naming file, column, row and value."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.datasets.collecting import reading
from recsys.datasets.reading import values
from recsys.datasets.reading.raw_log import RawLog, ask, first_row
from recsys.datasets.reading.time_checks import check_times
from recsys.datasets.reading.times import either_order, parsed, read_time, time_is_whole
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLog:
    """A log whose values were found good, and the expressions that convert them.

    Attributes:
        raw: what was looked at.
        rows: number of data rows.
        user_id, item_id: expressions, int64 or string.
        key: expression, int64, orders the events of a user; None where the order of rows does.
        per_second: ticks of ``key`` in a second; None for a log of order alone.
        notices: lines worth showing: what was guessed or is strange.
    """

    raw: RawLog
    rows: int
    user_id: "pl.Expr"
    item_id: "pl.Expr"
    key: "pl.Expr | None"
    per_second: int | None
    notices: tuple[str, ...] = ()

    @property
    def has_times(self) -> bool:
        """Whether events have a time and not only a place."""
        return self.per_second is not None


def check_log(raw: RawLog) -> CheckedLog:
    """Check ids and times in two streaming passes.

    Raises:
        DataError: no rows; an id that is null, empty, NaN, infinite or a fraction; an id or time column of
            a type that cannot be one, or cannot hold its values; a time that is missing, not a number,
            before 1970, after 2199, or looks like milliseconds or finer.
    """
    import polars as pl

    with reading(raw.label, raw.path, raw.separator):
        schema = raw.frame.collect_schema()
    for column in (raw.user, raw.item):
        _check_id_type(raw, column, schema[column])
    if raw.time is not None:
        _check_time_type(raw, raw.time, schema[raw.time])
    for column in (raw.user, raw.item, *(() if raw.time is None else (raw.time,))):
        _check_exact(raw, column, schema[column])

    asked = [pl.len().alias("rows")]
    for column in (raw.user, raw.item):
        for name, expression in _id_questions(column, schema[column]).items():
            asked.append(expression.sum().alias(f"{name} {column}"))
        if raw.json:
            asked.append(values.id_is_nested(column).sum().alias(f"nested {column}"))
    text_time = raw.time is not None and schema[raw.time] == pl.String
    if text_time:
        assert raw.time is not None
        asked.append(time_is_whole(raw.time).sum().alias("whole time"))
        asked.append(pl.col(raw.time).drop_nulls().first().alias("first time"))
    facts = ask(raw, asked)
    if not facts["rows"]:
        raise DataError(f"{raw.label}: no rows; nothing can be read")
    user_id = _settle_id(raw, raw.user, schema[raw.user], facts)
    item_id = _settle_id(raw, raw.item, schema[raw.item], facts)
    key, per_second, notices = None, None, raw.notices
    if raw.time is not None:
        whole = not text_time or facts["whole time"] == facts["rows"]
        sample = facts["first time"] if text_time else None
        time = read_time(
            raw.time,
            schema[raw.time],
            raw.unit,
            sample=sample,
            whole=whole,
            time_format=raw.time_format or _day_or_month_first(raw, sample),
        )
        notices = (*notices, *check_times(raw, raw.time, time))
        key = time.key
        per_second = None if raw.unit == "order" else time.per_second
    return CheckedLog(
        raw=raw,
        rows=facts["rows"],
        user_id=user_id,
        item_id=item_id,
        key=key,
        per_second=per_second,
        notices=notices,
    )


def _check_id_type(raw: RawLog, column: str, dtype: "pl.DataType") -> None:
    import polars as pl

    if dtype == pl.Null:
        raise DataError(f"{raw.label}: column {column!r} is empty; ids are whole numbers or text")
    if not (dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum)) or dtype.is_decimal():
        remedy = "write one row per event" if dtype in (pl.List, pl.Array) else "cast it"
        raise DataError(
            f"{raw.label}: column {column!r} has type {dtype}; ids are whole numbers or text: {remedy}"
        )


def _check_time_type(raw: RawLog, column: str, dtype: "pl.DataType") -> None:
    import polars as pl

    ok = dtype.is_integer() or dtype.is_float() or dtype in (pl.String, pl.Date, pl.Datetime)
    if not ok:
        raise DataError(
            f"{raw.label}: column {column!r} has type {dtype}; times are unix seconds, dates or datetimes"
        )


def _check_exact(raw: RawLog, column: str, dtype: "pl.DataType") -> None:
    """Refuse whole numbers that a narrow float has rounded: ids of their own would be one, times others."""
    import polars as pl

    if dtype != pl.Float32:
        return
    limit = 2**24
    value = pl.col(column)
    rounded = value.is_finite() & (value.abs() >= limit)
    if ask(raw, [rounded.any().alias("any")])["any"]:
        row, found = first_row(raw, column, rounded)
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: {dtype} holds whole numbers up to {limit:,} only and"
            f" has rounded {found:.0f}; read the column as whole numbers or Float64 from its source"
        )


def _id_questions(column: str, dtype: "pl.DataType") -> "dict[str, pl.Expr]":
    return {
        "missing": values.id_missing(column, dtype),
        "fraction": values.id_fraction(column, dtype),
        "int": values.id_is_int(column, dtype),
        "whole": values.id_is_whole(column, dtype),
        "numeric": values.id_is_numeric(column, dtype),
    }


def _settle_id(raw: RawLog, column: str, dtype: "pl.DataType", facts: dict[str, Any]) -> "pl.Expr":
    rows = facts["rows"]
    if facts[f"missing {column}"]:
        row, value = first_row(raw, column, values.id_missing(column, dtype))
        held = "" if value is None else f" ({value!r})"
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: the id is missing{held}; fill or drop the row"
        )
    all_numeric = facts[f"numeric {column}"] == rows
    if all_numeric and facts[f"fraction {column}"]:
        row, value = first_row(raw, column, values.id_fraction(column, dtype))
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: {value!r} is not a whole number of at most 2^53;"
            " ids are whole numbers or text"
        )
    if raw.json and facts[f"nested {column}"]:
        row, value = first_row(raw, column, values.id_is_nested(column))
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: {value[:60]!r} is no id but an object or a list;"
            " write one event a line, with plain ids"
        )
    if facts[f"int {column}"] == rows:
        return values.id_expression(column, dtype, "int")
    if facts[f"whole {column}"] == rows:
        return values.id_expression(column, dtype, "whole_float")
    return values.id_expression(column, dtype, "text")


def _day_or_month_first(raw: RawLog, sample: str | None) -> str | None:
    """The format of dates like 11/1/2019, by what the whole column can be.

    Raises:
        DataError: it can be either, and nobody but the owner knows.
    """
    import polars as pl

    pair = either_order(sample) if sample is not None and raw.time is not None else None
    if pair is None:
        return None
    assert raw.time is not None
    text = pl.col(raw.time).str.strip_chars()
    facts = ask(raw, [parsed(text, one).is_null().sum().alias(one) for one in pair])
    fitting = [one for one in pair if not facts[one]]
    if len(fitting) == 2:
        raise DataError(
            f"{raw.label}: column {raw.time!r}: {sample!r} may be month/day or day/month;"
            f" pass time_format={pair[0]!r} or time_format={pair[1]!r}"
        )
    return fitting[0] if fitting else None
