"""Turn raw columns of a log into ids and times: one streaming pass looks, a lazy expression converts.

Ids become int64 where every value is a whole number (``42``, ``42.0``) in its usual spelling, else text;
digits with leading zeros stay text, since ``007`` and ``7`` may be two users. Times become seconds, with a
finer sort key where the log has one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recsys.datasets.schema import PER_SECOND, TimeUnit

if TYPE_CHECKING:
    import polars as pl

IdKind = Literal["int", "whole_float", "text"]

_INT = r"^(0|-?[1-9]\d{0,17})$"
_WHOLE = r"^(0|-?[1-9]\d{0,14})(\.0*)?$"
_NUMERIC = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_DIGITS = r"^[+-]?\d+$"
_MISSING = ["", "nan", "null", "none", "inf", "-inf", "+inf", "infinity", "-infinity"]

_TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%a %b %d %H:%M:%S %z %Y",  # Foursquare and Twitter
)


@dataclass(frozen=True, slots=True)
class TimeReading:
    """How a time column is to be read.

    Attributes:
        key: expression, int64 ticks of the column's own resolution, null where a value cannot be read.
        per_second: ticks in a second.
        numeric: whether the column holds numbers, so that a wrong unit is possible.
    """

    key: "pl.Expr"
    per_second: int
    numeric: bool

    @property
    def seconds(self) -> "pl.Expr":
        """Expression, int64 unix seconds."""
        return self.key // self.per_second


def id_text(column: str) -> "pl.Expr":
    """A text column without blanks around its values."""
    import polars as pl

    return pl.col(column).cast(pl.String).str.strip_chars()


def id_missing(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether an id is null, empty, NaN or infinite."""
    import polars as pl

    value = pl.col(column)
    if dtype.is_float():
        return value.is_null() | ~value.is_finite()
    if dtype.is_integer():
        return value.is_null()
    return value.is_null() | id_text(column).str.to_lowercase().is_in(_MISSING)


def id_fraction(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether a numeric id is no whole number, or one too large to be exact."""
    import polars as pl

    if dtype.is_float():
        value = pl.col(column)
        return (value != value.floor()) | (value.abs() >= 2**53)
    if dtype.is_integer():
        return pl.col(column) > 2**63 - 1 if dtype == pl.UInt64 else pl.lit(False)
    text = id_text(column)
    return text.str.contains(_NUMERIC) & ~text.str.contains(_DIGITS) & ~text.str.contains(_WHOLE)


def id_is_int(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether a value is a whole number in its usual spelling."""
    import polars as pl

    return pl.col(column).is_not_null() if dtype.is_numeric() else id_text(column).str.contains(_INT)


def id_is_whole(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether a value is a whole number, written with or without a decimal point."""
    import polars as pl

    return pl.col(column).is_not_null() if dtype.is_numeric() else id_text(column).str.contains(_WHOLE)


def id_is_numeric(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether a value is a number of any spelling."""
    import polars as pl

    return pl.col(column).is_not_null() if dtype.is_numeric() else id_text(column).str.contains(_NUMERIC)


def id_expression(column: str, dtype: "pl.DataType", kind: IdKind) -> "pl.Expr":
    """The converted column: int64 or string."""
    import polars as pl

    if dtype.is_numeric():
        return pl.col(column).cast(pl.Int64)
    if kind == "int":
        return id_text(column).cast(pl.Int64)
    if kind == "whole_float":
        return id_text(column).cast(pl.Float64).cast(pl.Int64)
    return id_text(column)


def time_is_whole(column: str) -> "pl.Expr":
    """Whether a text value is a whole number, with or without a decimal point."""
    import polars as pl

    return pl.col(column).str.strip_chars().str.contains(r"^[+-]?\d+(\.0*)?$")


def read_time(
    column: str, dtype: "pl.DataType", unit: TimeUnit | None, *, sample: str | None = None, whole: bool = True
) -> TimeReading:
    """Choose how to read a time column.

    Args:
        column: its name.
        dtype: its polars type: integer, float, text, date or datetime.
        unit: of numbers; None reads seconds and "order" reads places.
        sample: first value of a text column, which tells its date format.
        whole: whether all values of a text column are whole numbers. Those are read without passing
            through float64, which cannot hold nanoseconds since 1970.
    """
    import polars as pl

    value = pl.col(column)
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
        key = text.str.to_datetime(found, strict=False, time_unit="us", exact=True).cast(pl.Int64)
        return TimeReading(key, PER_SECOND["us"], False)
    if whole:
        return TimeReading(text.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False), per_second, True)
    return _float_time(text.cast(pl.Float64, strict=False), per_second)


def _float_time(value: "pl.Expr", per_second: int) -> TimeReading:
    """Read real numbers to the microsecond."""
    import polars as pl

    finite = pl.when(value.is_finite()).then(value)
    ticks = (finite * (PER_SECOND["us"] / per_second)).round().cast(pl.Int64, strict=False)
    return TimeReading(ticks, PER_SECOND["us"], True)


def _time_format(sample: str) -> str | None:
    import polars as pl

    series = pl.Series([sample.strip()], dtype=pl.String)
    for candidate in _TIME_FORMATS:
        moment = series.str.to_datetime(candidate, strict=False, time_unit="us", exact=True)
        if moment.null_count() == 0:
            return candidate
    return None
