"""The condition that says which events are predicted, and which events meet it."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

__all__ = ["Condition", "meeting", "words_of"]

_FORM = re.compile(r"([^=!<>]*)(!=|>=|<=|=|>|<)(.*)", re.DOTALL)

_BY_NUMBER: Mapping[str, Callable[[Any, float], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A column, a comparison and what its values are compared with.

    Attributes:
        column: of the log.
        comparison: ``=``, ``!=``, ``>=``, ``<=``, ``>`` or ``<``.
        values: one or more; of a comparison by size the one number.
    """

    column: str
    comparison: str
    values: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "Condition":
        """Read ``column=value,value``, ``column!=value,value`` or ``column>=number``.

        Raises:
            ArgumentError: it is none of these.
        """
        found = _FORM.fullmatch(text)
        column, comparison, rest = (part.strip() for part in found.groups()) if found else ("", "", "")
        values = tuple(value.strip() for value in rest.split(","))
        if not (column and all(values)):
            raise ArgumentError(
                f"target_where={text!r} is no condition: write it as column=value, for example"
                " action=purchase, or as column>=number"
            )
        if comparison == "<" and rest.startswith(">"):
            raise ArgumentError(f"target_where={text!r} is no condition: write != for <>")
        if comparison in _BY_NUMBER and (len(values) > 1 or math.isnan(number_of(values[0]))):
            raise ArgumentError(
                f"target_where={text!r} is no condition: {comparison} compares with one number, for example"
                f" {column}{comparison}4"
            )
        return cls(column=column, comparison=comparison, values=values)


def meeting(series: "pl.Series", condition: Condition, where: str) -> "NDArray[np.bool_]":
    """(N,) bool, events that meet a condition; one without a value meets none.

    Args:
        series: the column's N values.
        condition: of this column.
        where: file and column, for messages.

    Raises:
        DataError: a value that was named is never held, or numbers are asked for where there are none or
            none is met.
    """
    words = words_of(series, where)
    if condition.comparison in _BY_NUMBER:
        return _by_number(words, condition, where)
    named = _named(words, condition.values, where)
    if condition.comparison == "=":
        return named
    missing = words.is_null() | (words == "")
    if series.dtype.is_float():
        missing |= series.is_nan()
    there: NDArray[np.bool_] = (~missing.fill_null(True)).to_numpy()
    return there & ~named


def words_of(series: "pl.Series", where: str) -> "pl.Series":
    """Values as text without blanks around it.

    Raises:
        DataError: they are neither text nor numbers.
    """
    import polars as pl

    try:
        return series.cast(pl.String).str.strip_chars()
    except pl.exceptions.PolarsError:
        raise DataError(f"{where} holds {series.dtype}, neither text nor numbers; leave it out") from None


def number_of(text: str) -> float:
    """The number that a text is; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _by_number(words: "pl.Series", condition: Condition, where: str) -> "NDArray[np.bool_]":
    import polars as pl

    given = words.set(words == "", None)
    numbers = given.cast(pl.Float64, strict=False)
    if numbers.null_count() > given.null_count():
        wrong = given.filter(numbers.is_null() & given.is_not_null())[0]
        raise DataError(
            f"{where} holds {wrong!r}, which is no number, and {condition.comparison} compares numbers; name"
            f" the values instead, as '{condition.column}={wrong}'"
        )
    found = numbers.fill_null(math.nan).to_numpy()
    meets: NDArray[np.bool_] = _BY_NUMBER[condition.comparison](found, number_of(condition.values[0]))
    if not meets.any():
        held = [number for number in found.tolist() if not math.isnan(number)]
        told = f"they reach from {min(held):g} to {max(held):g}" if held else "it holds none at all"
        raise DataError(f"{where} has no number {condition.comparison} {condition.values[0]}; {told}")
    return meets


def _named(words: "pl.Series", values: tuple[str, ...], where: str) -> "NDArray[np.bool_]":
    import numpy as np
    import polars as pl

    meets = np.zeros(len(words), dtype=bool)
    for value in values:
        own = (words == value).fill_null(False)
        number = number_of(value)
        if not math.isnan(number) and not own.any():  # 5 is 5.0
            own = (words.cast(pl.Float64, strict=False) == number).fill_null(False)
        if not own.any():
            held = words.filter(words != "").unique().sort()
            shown = ", ".join(held.head(8).to_list()) + (", ..." if len(held) > 8 else "")
            raise DataError(f"{where} never holds {value!r}; it holds {shown}")
        meets |= own.to_numpy()
    return meets
