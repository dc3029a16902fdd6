"""Look at the times of a log and refuse what is none, or stands for none."""

from datetime import UTC, datetime

from recsys.datasets.reading.numeric_dates import looks_like
from recsys.datasets.reading.raw_log import RawLog, ask, first_row
from recsys.datasets.reading.times import TimeReading
from recsys.datasets.schema import LATEST_S, PER_SECOND, TimeUnit
from recsys.errors import DataError

_YEAR_1971, _YEAR_1980 = 86_400 * 365, 315_532_800


def check_times(raw: RawLog, column: str, time: TimeReading) -> tuple[str, ...]:
    """Refuse times that are missing, no times, placeholders, or dates written as numbers.

    Returns:
        Lines worth showing.

    Raises:
        DataError: one line names the column, a row and the remedy.
    """
    import polars as pl

    asked = time.key if raw.unit == "order" else time.seconds
    facts = ask(
        raw,
        [
            asked.is_null().sum().alias("unread"),
            asked.min().alias("least"),
            asked.max().alias("most"),
            (asked == 0).sum().alias("zeros"),
        ],
    )
    if facts["unread"]:
        row, value = first_row(raw, column, asked.is_null())
        remedy = "write unix seconds or a date like 2024-05-31 17:00:00, or pass time_format="
        if raw.unit == "order":
            remedy = "write a whole number"
        elif raw.time_format is not None:
            remedy = f"it does not match {raw.time_format!r}"
        raise DataError(f"{raw.label}: column {column!r}, row {row}: {value!r} is not a time; {remedy}")
    if raw.unit == "order":
        return ()
    numbers = looks_like(facts["least"], facts["most"]) if time.numeric and raw.unit is None else None
    if numbers is not None:
        kind, remedy = numbers
        row, value = first_row(raw, column, asked.is_not_null())
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: {value!r} looks like {kind}, not like seconds;"
            f" {remedy}{_other_columns(raw, column)}"
        )
    if facts["most"] >= LATEST_S:
        row, value = first_row(raw, column, asked >= LATEST_S)
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
        row, value = first_row(raw, column, asked < 0)
        raise DataError(f"{raw.label}: column {column!r}, row {row}: {value!r} lies before 1970; correct it")
    if facts["zeros"] and facts["most"] >= _YEAR_1980:
        row, value = first_row(raw, column, asked == 0)
        raise DataError(
            f"{raw.label}: column {column!r}, row {row}: {value!r} stands for a missing time (in"
            f" {facts['zeros']} rows; others reach {_date(facts['most'])}); drop these rows or fill them in"
        )
    if not time.numeric or facts["most"] >= _YEAR_1971 or raw.unit == "s":
        return ()
    if raw.unit is None:
        return (
            f"{raw.label}: column {column!r}: all times lie in 1970 if they are seconds, as is assumed"
            f"{_other_columns(raw, column)}",
        )
    most = ask(raw, [pl.col(column).max().alias("most")])["most"]
    raise DataError(
        f"{raw.label}: column {column!r}: with time_unit={raw.unit!r} all times fall in 1970"
        f" (the largest is {most!r}); pass another time_unit="
    )


def _other_columns(raw: RawLog, column: str) -> str:
    """A hint at other columns that may hold the time."""
    schema = raw.frame.collect_schema()
    others = [
        name
        for name, dtype in schema.items()
        if name not in (column, raw.user, raw.item)
        and not dtype.is_nested()
        and any(word in name.lower() for word in ("time", "date", "stamp"))
    ]
    return f" (other columns that may be the time: {', '.join(others[:3])})" if others else ""


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


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
