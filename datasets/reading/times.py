"""Turn a raw column of a log into times: seconds, with a finer sort key where the log has one."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.datasets.schema import PER_SECOND, TimeUnit
from recsys.errors import ArgumentError

if TYPE_CHECKING:
    import polars as pl

# Formats that say one thing only; "11/1/2019" is not among them.
_TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%d %H:%M:%S%.f GMT",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y%m%dT%H%M%S",
    "%Y%m%dT%H%M%S%#z",
    "%Y-%m-%d %I:%M:%S %p",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%a %b %d %H:%M:%S %z %Y",  # Foursquare and Twitter
    "%a, %d %b %Y %H:%M:%S %z",  # mail
    "%d/%b/%Y:%H:%M:%S %z",  # web servers
)


@dataclass(frozen=True, slots=True)
class TimeReading:
    """How a time column is to be read.

    Attributes:
        key: expression, int64 ticks of the column's own resolution, null where a value cannot be read.
        per_second: ticks in a second.
        numeric: whether the column holds numbers, so that a wrong unit is possible.
        checked: expression, int64 seconds for checks where ``key`` would overflow for a wrong unit.
    """

    key: "pl.Expr"
    per_second: int
    numeric: bool
    checked: "pl.Expr | None" = None

    @property
    def seconds(self) -> "pl.Expr":
        """Expression, int64 unix seconds."""
        return self.key // self.per_second if self.checked is None else self.checked


def time_is_whole(column: str) -> "pl.Expr":
    """Whether a text value is a whole number, with or without a decimal point."""
    import polars as pl

    return pl.col(column).str.strip_chars().str.contains(r"^[+-]?\d+(\.0*)?$")


def read_time(
    column: str,
    dtype: "pl.DataType",
    unit: TimeUnit | None,
    *,
    sample: str | None = None,
    whole: bool = True,
    time_format: str | None = None,
) -> TimeReading:
    """Choose how to read a time column.

    Args:
        column: its name.
        dtype: its polars type: integer, float, text, date or datetime.
        unit: of numbers; None reads seconds and "order" reads places.
        sample: first value of a text column, which tells its date format.
        whole: whether all values of a text column are whole numbers. Those are read without passing
            through float64, which cannot hold nanoseconds since 1970.
        time_format: of text or numbers that are dates, as strptime writes it.

    Raises:
        ArgumentError: the format cannot be one.
    """
    import polars as pl

    value = pl.col(column)
    if time_format is not None:
        return _formatted(value, dtype, check_format(time_format))
    per_second = 1 if unit in (None, "order") else PER_SECOND[unit]
    if dtype == pl.Date:
        return TimeReading(value.cast(pl.Int64) * 86_400, 1, False)
    if isinstance(dtype, pl.Datetime):
        return TimeReading(value.cast(pl.Int64), PER_SECOND[dtype.time_unit], False)
    if dtype.is_float():
        return _float_time(value, per_second)
    if dtype.is_integer():
        return TimeReading(value.cast(pl.Int64, strict=False), per_second, True)
    text = value.str.strip_chars()
    if sample is not None and (found := _time_format(sample)):
        return _formatted(value, dtype, found)
    if whole:
        return TimeReading(text.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False), per_second, True)
    return _float_time(text.cast(pl.Float64, strict=False), per_second)


def _float_time(value: "pl.Expr", per_second: int) -> TimeReading:
    """Read real numbers to the microsecond."""
    import polars as pl

    finite = pl.when(value.is_finite()).then(value)
    ticks = (finite * (PER_SECOND["us"] / per_second)).round().cast(pl.Int64, strict=False)
    seconds = (finite / per_second).floor().cast(pl.Int64, strict=False)
    return TimeReading(ticks, PER_SECOND["us"], True, seconds)


def _formatted(value: "pl.Expr", dtype: "pl.DataType", time_format: str) -> TimeReading:
    import polars as pl

    number = value.cast(pl.Int64, strict=False) if dtype.is_float() else value
    moment = parsed(number.cast(pl.String).str.strip_chars(), time_format)
    return TimeReading(moment.cast(pl.Int64), PER_SECOND["us"], False)


def parsed(text: Any, time_format: str) -> Any:
    """Text (expression or series) to datetimes; null where it does not match."""
    if any(hour in time_format for hour in ("%H", "%I", "%k", "%l")) and "%M" not in time_format:
        text, time_format = text + " 00", time_format + " %M"  # the parser wants minutes after hours
    return text.str.to_datetime(time_format, strict=False, time_unit="us", exact=True)


def check_format(time_format: str) -> str:
    """Refuse a format that no parser can follow.

    Raises:
        ArgumentError: it is none.
    """
    import polars as pl

    try:
        parsed(pl.Series(["2024-05-31"]), time_format)
    except pl.exceptions.PolarsError:
        raise ArgumentError(
            f"time_format={time_format!r} is no format: write it as strptime does, for example %Y-%m-%d %H:%M"
        ) from None
    return time_format


def either_order(sample: str) -> tuple[str, str] | None:
    """Formats of a date like 11/1/2019, with the month first and with the day first; None for others."""
    import polars as pl

    found = re.match(r"^\d{1,2}([/-])\d{1,2}\1\d{4}", sample.strip())
    if found is None:
        return None
    series, mark = pl.Series([sample.strip()], dtype=pl.String), found[1]
    for rest in ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p"):
        pair = (f"%m{mark}%d{mark}%Y{rest}", f"%d{mark}%m{mark}%Y{rest}")
        if any(parsed(series, one).null_count() == 0 for one in pair):
            return pair
    return None


def _time_format(sample: str) -> str | None:
    import polars as pl

    series = pl.Series([sample.strip()], dtype=pl.String)
    for candidate in _TIME_FORMATS:
        if parsed(series, candidate).null_count() == 0:
            return candidate
    return None
