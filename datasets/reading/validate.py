"""Look at every value of a log once and refuse what would spoil it, naming file, column, row and value."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.datasets.collecting import reading
from recsys.datasets.reading import times, values
from recsys.datasets.schema import LATEST_S, PER_SECOND, TimeUnit
from recsys.errors import DataError

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
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLog:
    """A log whose values were found good, and the expressions that convert them.

    Attributes:
        raw: what was looked at.
        rows: number of data rows.
        user_id, item_id: expressions, int64 or string.
        key: expression, int64, orders the events of a user; None where the order of rows does.
        per_second: ticks of ``key`` in a second; None for a log of order alone.
    """

    raw: RawLog
    rows: int
    user_id: "pl.Expr"
    item_id: "pl.Expr"
    key: "pl.Expr | None"
    per_second: int | None

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines worth showing: what was guessed."""
        return self.raw.notices

    @property
    def has_times(self) -> bool:
        """Whether events have a time and not only a place."""
        return self.per_second is not None


def check_log(raw: RawLog) -> CheckedLog:
    """Check ids and times in two streaming passes.

    Raises:
        DataError: no rows; an id that is null, empty, NaN, infinite or a fraction; an id or time column of
            a type that cannot be one; a time that is missing, not a number, before 1970, after 2199, or
            looks like milliseconds or finer.
    """
    import polars as pl

    with reading(raw.label, raw.path, raw.separator):
        schema = raw.frame.collect_schema()
    for column in (raw.user, raw.item):
        _check_id_type(raw, column, schema[column])
    if raw.time is not None:
        _check_time_type(raw, raw.time, schema[raw.time])

    asked = [pl.len().alias("rows")]
    for column in (raw.user, raw.item):
        for name, expression in _id_questions(column, schema[column]).items():
            asked.append(expression.sum().alias(f"{name} {column}"))
    text_time = raw.time is not None and schema[raw.time] == pl.String
    if text_time:
        assert raw.time is not None
        asked.append(times.time_is_whole(raw.time).sum().alias("whole time"))
        asked.append(pl.col(raw.time).drop_nulls().first().alias("first time"))
    facts = _ask(raw, asked)
    if not facts["rows"]:
        raise DataError(f"{raw.label}: no rows; nothing can be read")
    user_id = _settle_id(raw, raw.user, schema[raw.user], facts)
    item_id = _settle_id(raw, raw.item, schema[raw.item], facts)
    key, per_second = None, None
    if raw.time is not None:
        whole = not text_time or facts["whole time"] == facts["rows"]
        sample = facts["first time"] if text_time else None
        time = times.read_time(
            raw.time, schema[raw.time], raw.unit, sample=sample, whole=whole, time_format=raw.time_format
        )
        _check_times(raw, raw.time, time)
        key = time.key
        per_second = None if raw.unit == "order" else time.per_second
    return CheckedLog(
        raw=raw, rows=facts["rows"], user_id=user_id, item_id=item_id, key=key, per_second=per_second
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


def _id_questions(column: str, dtype: "pl.DataType") -> "dict[str, pl.Expr]":
    return {
        "missing": values.id_missing(column, dtype),
        "fraction": values.id_fraction(column, dtype),
        "int": values.id_is_int(column, dtype),
        "whole": values.id_is_whole(column, dtype),
        "numeric": values.id_is_numeric(column, dtype),
    }


def _ask(raw: RawLog, asked: "list[pl.Expr]") -> dict[str, Any]:
    with reading(raw.label, raw.path, raw.separator):
        return raw.frame.select(asked).collect(engine="streaming").row(0, named=True)


def _first_row(raw: RawLog, column: str, bad: "pl.Expr") -> tuple[int, Any]:
    """1-based data row and value of the first row for which ``bad`` is true or null."""
    import polars as pl

    frame = raw.frame.select(column).with_row_index("row", offset=1).filter(bad.fill_null(True)).head(1)
    with reading(raw.label, raw.path, raw.separator):
        found = frame.select(pl.col("row"), pl.col(column)).collect().row(0)
    return int(found[0]), found[1]


def _settle_id(raw: RawLog, column: str, dtype: "pl.DataType", facts: dict[str, Any]) -> "pl.Expr":
    rows = facts["rows"]
    if facts[f"missing {column}"]:
        row, value = _first_row(raw, column, values.id_missing(column, dtype))
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: the id is missing ({value!r}); fill or drop the row"
        )
    all_numeric = facts[f"numeric {column}"] == rows
    if all_numeric and facts[f"fraction {column}"]:
        row, value = _first_row(raw, column, values.id_fraction(column, dtype))
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: {value!r} is not a whole number of at most 2^53;"
            " ids are whole numbers or text"
        )
    if facts[f"int {column}"] == rows:
        return values.id_expression(column, dtype, "int")
    if facts[f"whole {column}"] == rows:
        return values.id_expression(column, dtype, "whole_float")
    return values.id_expression(column, dtype, "text")


def _check_times(raw: RawLog, column: str, time: times.TimeReading) -> None:
    import polars as pl

    asked = time.key if raw.unit == "order" else time.seconds
    facts = _ask(
        raw,
        [
            asked.is_null().sum().alias("unread"),
            asked.min().alias("least"),
            asked.max().alias("most"),
        ],
    )
    if facts["unread"]:
        row, value = _first_row(raw, column, asked.is_null())
        remedy = "write unix seconds or a date like 2024-05-31 17:00:00, or pass time_format="
        if raw.unit == "order":
            remedy = "write a whole number"
        elif raw.time_format is not None:
            remedy = f"it does not match {raw.time_format!r}"
        raise DataError(f"{raw.label}: column {column!r}, row {row}: {value!r} is not a time; {remedy}")
    if raw.unit == "order":
        return
    if facts["most"] >= LATEST_S:
        row, value = _first_row(raw, column, asked >= LATEST_S)
        if raw.unit is None and time.numeric and (finer := _finer_unit(facts["most"])):
            name, unit = finer
            raise DataError(
                f"{raw.label}: column {column!r}, row {row}: {value!r} looks like {name};"
                f" pass time_unit={unit!r}"
            )
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: {value!r} lies after the year 2199;"
            " correct it or pass another time_unit="
        )
    if facts["least"] < 0:
        row, value = _first_row(raw, column, asked < 0)
        raise DataError(f"{raw.label}: column {column!r}, row {row}: {value!r} lies before 1970; correct it")
    if time.numeric and raw.unit not in (None, "s") and facts["most"] < 86_400 * 365:
        value = raw.frame.select(pl.col(column).max())
        with reading(raw.label, raw.path, raw.separator):
            most = value.collect().item()
        raise DataError(
            f"{raw.label}: column {column!r}: with time_unit={raw.unit!r} all times fall in 1970"
            f" (the largest is {most!r}); pass another time_unit="
        )


def _finer_unit(most: int) -> tuple[str, TimeUnit] | None:
    """The unit in which a number would lie between 1973 and 2200."""
    names: tuple[tuple[str, TimeUnit], ...] = (
        ("milliseconds", "ms"),
        ("microseconds", "us"),
        ("nanoseconds", "ns"),
    )
    for name, unit in names:
        if 100_000_000 <= most // PER_SECOND[unit] < LATEST_S:
            return name, unit
    return None
