"""Logs in memory: polars, pandas, Arrow, numpy and plain Python, without importing their libraries."""

from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.datasets.schema import ITEM, TIMESTAMP, USER
from recsys.errors import ArgumentError

if TYPE_CHECKING:
    import polars as pl

_ROLES = (USER, ITEM, TIMESTAMP)


def as_frame(data: Any) -> "pl.DataFrame | pl.LazyFrame | None":
    """A log in memory as a polars frame; None where ``data`` names a log (text, a path).

    Taken are polars frames, pandas frames, whatever has Arrow's ``__arrow_c_stream__`` (tables, DuckDB
    results), mappings of columns, lists of mappings, numpy structured arrays, and arrays or lists of rows
    (user, item) or (user, item, time); rows without a time are in the order of events where
    ``time_unit="order"`` says so. An index of a pandas frame counts where it has a name.

    Raises:
        ArgumentError: it is a matrix of users by items, which has no order, or no log at all.
    """
    import os

    import polars as pl

    if isinstance(data, str | os.PathLike):
        return None
    if isinstance(data, pl.DataFrame | pl.LazyFrame):
        return data
    try:
        return _converted(data)
    except ArgumentError:
        raise
    except (pl.exceptions.PolarsError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArgumentError(
            f"{_name(data)} cannot be read as a log ({reason}); pass columns of one type each"
        ) from None


def _converted(data: Any) -> "pl.DataFrame":
    import polars as pl

    if hasattr(data, "tocsr") or hasattr(data, "tocoo"):
        raise ArgumentError(
            f"{_name(data)}: a matrix of users by items has no order of events; pass columns user_id, item_id"
            " and timestamp, for example as a mapping of arrays"
        )
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return _from_pandas(data)
    if hasattr(data, "__arrow_c_stream__"):
        return pl.DataFrame(data)
    if isinstance(data, np.ndarray):
        return _from_array(data)
    if hasattr(data, "items") and hasattr(data, "keys"):
        return pl.DataFrame({str(name): _series(str(name), values) for name, values in data.items()})
    if isinstance(data, list | tuple):
        return _from_rows(data)
    raise ArgumentError(
        f"{_name(data)} is no log; pass a path, a known name, a frame (polars, pandas, Arrow) or a mapping of"
        " columns"
    )


def _from_pandas(frame: Any) -> "pl.DataFrame":
    """Column by column, so that pandas alone is enough."""
    import polars as pl

    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    return pl.DataFrame([_series(str(name), frame[name]) for name in frame.columns])


def _series(name: str, values: Any) -> "pl.Series":
    """One column; pandas' missing values become null, its times with a zone UTC."""
    import polars as pl

    if isinstance(values, pl.Series):
        return values.alias(name)
    if hasattr(values, "isna") and hasattr(values, "to_numpy"):
        return _from_pandas_series(name, values)
    if isinstance(values, np.ndarray) and values.dtype != object:
        return pl.Series(name, _in_known_units(values))
    if hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__"):
        return pl.Series(name, values)
    return _from_list(name, list(values))


def _from_pandas_series(name: str, values: Any) -> "pl.Series":
    import polars as pl
    import pyarrow as pa

    if getattr(values.dtype, "tz", None) is not None:
        values = values.dt.tz_convert(None)
    if isinstance(values.dtype, np.dtype) and values.dtype != object:
        return pl.Series(name, _in_known_units(values.to_numpy()))
    try:
        return pl.Series(name, pa.array(values, from_pandas=True))
    except (pa.ArrowException, TypeError):  # values of several types
        missing = values.isna().to_list()
        pairs = zip(missing, values.to_list(), strict=True)
        return _from_list(name, [None if gone else value for gone, value in pairs])


def _in_known_units(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Datetimes in a unit that polars has: days, minutes and seconds become microseconds."""
    if values.dtype.kind == "M" and np.datetime_data(values.dtype)[0] not in ("ms", "us", "ns"):
        return values.astype("datetime64[us]")
    return values


def _from_list(name: str, values: list[Any]) -> "pl.Series":
    """Values of one type as they are; numbers among text become text, as in a file."""
    import polars as pl

    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and str in kinds:
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
    return pl.Series(name, values, strict=not (kinds <= {int, float} and len(kinds) > 1))


def _from_array(array: "np.ndarray[Any, Any]") -> "pl.DataFrame":
    import polars as pl

    if array.dtype.names:
        return pl.DataFrame([_series(name, np.ascontiguousarray(array[name])) for name in array.dtype.names])
    if array.ndim != 2 or array.shape[1] not in (2, 3):
        raise ArgumentError(
            f"an array of shape {array.shape} is no log; its rows are (user, item) or (user, item, time), or"
            " its columns have names"
        )
    columns = [
        _series(name, np.ascontiguousarray(array[:, place]))
        for place, name in enumerate(_ROLES[: array.shape[1]])
    ]
    return pl.DataFrame(columns)


def _from_rows(rows: "list[Any] | tuple[Any, ...]") -> "pl.DataFrame":
    import polars as pl

    if rows and all(hasattr(row, "keys") for row in rows):
        names = list(dict.fromkeys(str(name) for row in rows for name in row))
        return pl.DataFrame([_from_list(name, [row.get(name) for row in rows]) for name in names])
    widths = {len(row) if isinstance(row, list | tuple) else 0 for row in rows}
    if not widths <= {2} and not widths <= {3}:
        raise ArgumentError(
            "a list is a log where each of its rows is (user, item) or (user, item, time), or a mapping"
        )
    if not rows:
        raise ArgumentError("the list is empty; nothing can be read")
    columns = zip(*rows, strict=True)
    return pl.DataFrame(
        [_from_list(name, list(values)) for name, values in zip(_ROLES, columns, strict=False)]
    )


def _name(data: Any) -> str:
    return "data=None" if data is None else f"data of type {type(data).__name__}"
