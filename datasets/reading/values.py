"""Turn raw columns of a log into ids: one streaming pass looks, a lazy expression converts.

Ids become int64 where every value is a whole number (``42``, ``42.0``) in its usual spelling, else text;
digits with leading zeros stay text, since ``007`` and ``7`` may be two users.
"""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import polars as pl

IdKind = Literal["int", "whole_float", "text"]

_INT = r"^(0|-?[1-9]\d{0,18})$"
_WHOLE = r"^(0|-?[1-9]\d{0,14})(\.0*)?$"
_NUMERIC = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_DIGITS = r"^[+-]?\d+$"
# How databases, R, pandas and people write that there is nothing.
_MISSING = (
    "",
    *("nan", "null", "none", "nil", "na", "n/a", "#n/a", "<na>", "nat", "\\n", "-", "--", "(null)", "<null>"),
    *("undefined", "inf", "-inf", "+inf", "infinity", "-infinity"),
)


def _is_typed(dtype: "pl.DataType") -> bool:
    """Whether a column's own type settles that its ids are int64; larger numbers are read as text is."""
    import polars as pl

    return dtype.is_numeric() and dtype not in (pl.UInt64, pl.Int128)


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
    if _is_typed(dtype):
        return value.is_null()
    return value.is_null() | id_text(column).str.to_lowercase().is_in(list(_MISSING))


def id_fraction(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether a numeric id is no whole number, or one too large to be exact."""
    import polars as pl

    if dtype.is_float():
        value = pl.col(column)
        return (value != value.floor()) | (value.abs() >= 2**53)
    if _is_typed(dtype):
        return pl.lit(False)
    text = id_text(column)
    return text.str.contains(_NUMERIC) & ~text.str.contains(_DIGITS) & ~text.str.contains(_WHOLE)


def id_is_int(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether a value is a whole number in its usual spelling."""
    import polars as pl

    if _is_typed(dtype):
        return pl.col(column).is_not_null()
    text = id_text(column)
    return text.str.contains(_INT) & text.cast(pl.Int64, strict=False).is_not_null()


def id_is_whole(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether a value is a whole number, written with or without a decimal point."""
    import polars as pl

    return pl.col(column).is_not_null() if _is_typed(dtype) else id_text(column).str.contains(_WHOLE)


def id_is_nested(column: str) -> "pl.Expr":
    """Whether a value of a JSON key is an object or a list."""
    return id_text(column).str.contains(r"^[\[{]")


def id_is_numeric(column: str, dtype: "pl.DataType") -> "pl.Expr":
    """Whether a value is a number of any spelling."""
    import polars as pl

    return pl.col(column).is_not_null() if _is_typed(dtype) else id_text(column).str.contains(_NUMERIC)


def id_expression(column: str, dtype: "pl.DataType", kind: IdKind) -> "pl.Expr":
    """The converted column: int64 or string."""
    import polars as pl

    if _is_typed(dtype):
        return pl.col(column).cast(pl.Int64)
    if kind == "int":
        return id_text(column).cast(pl.Int64)
    if kind == "whole_float":
        return id_text(column).cast(pl.Float64).cast(pl.Int64)
    return id_text(column)
