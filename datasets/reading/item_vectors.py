"""Vectors of items as somebody has them: a .npy file, an array, a column, or a function of texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.folders import with_home
from recsys.datasets.reading.columns import exploded
from recsys.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["given_vectors"]

LARGEST, LEAST = float(np.finfo(np.float16).max), float(np.finfo(np.float16).tiny)
_BLOCK = 65_536


def given_vectors(source: Any, ids: "pl.Series", label: str) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Vectors of rows in half precision, and which rows have one.

    Args:
        source: path of a .npy file; a series; (function, texts); or an array.
        ids: (R,) ids of the rows.
        label: of the item file, for messages.

    Returns:
        (R, p) float16, zeros where a row has none; (R,) bool.

    Raises:
        ArgumentError: the source is no array, or a function gives none.
        DataError: it has another number of rows, vectors of several widths, NaN, infinities, or numbers that
            half precision cannot hold.
    """
    import polars as pl

    if isinstance(source, pl.Series):
        array, known = _column(source, ids, label)
        where = f"{label}: column {source.name!r}"
    else:
        array, where = _array(source)
        known = np.ones(ids.len(), dtype=bool)
        if array.ndim != 2 or array.shape[1] == 0:
            raise DataError(f"{where}: has shape {array.shape}, want a row of numbers for each item")
        if len(array) != ids.len():
            raise DataError(
                f"{where}: has {len(array):,} rows and {label} has {ids.len():,} items; give a row for each,"
                " in their order"
            )
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: holds {array.dtype}, want numbers")
    return _halved(array, known, ids, where), known


def _array(source: Any) -> tuple[NDArray[Any], str]:
    if isinstance(source, tuple):
        function, texts = source
        made = _as_array(function(texts), "what the function of item_vectors= gives")
        return made, "what the function of item_vectors= gives"
    if isinstance(source, str | Path):
        path = with_home(source)
        try:
            loaded: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; check the path of the vectors") from None
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: not a .npy file of numbers ({str(error).splitlines()[0]}); save the vectors again"
            ) from None
        return loaded, str(path)
    return _as_array(source, "item_vectors="), "item_vectors="


def _as_array(given: Any, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"{what} is no array ({str(error).splitlines()[0]}); give one of (items, width)"
        ) from None
    if array.dtype == object or array.ndim == 0:
        raise ArgumentError(
            f"{what} is no array of numbers but {type(given).__name__}; give one of (items, width)"
        )
    return array


def _column(column: "pl.Series", ids: "pl.Series", label: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A column of vectors as an array, zeros where it has none."""
    import polars as pl

    where, values = f"{label}: column {column.name!r}", column
    if values.dtype == pl.String:
        numbers = values.str.strip_chars("[]() \t").str.replace_all(r"[,;\s]+", " ").str.split(" ")
        values = numbers.list.eval(pl.element().filter(pl.element() != ""))
        values = values.list.eval(pl.element().cast(pl.Float64, strict=False))
    if isinstance(values.dtype, pl.Array) and len(values.dtype.shape) == 1:
        values = values.arr.to_list()
    if not isinstance(values.dtype, pl.List) or not values.dtype.inner.is_numeric():
        raise DataError(f"{where} holds {column.dtype}, want a list of numbers for each item")
    widths = values.list.len().fill_null(0).to_numpy().astype(np.int64)
    known = widths > 0
    if not known.any():
        raise DataError(f"{where} holds no vector")
    first = int(np.flatnonzero(known)[0])
    other = np.flatnonzero(known & (widths != widths[first]))
    if len(other):
        row = int(other[0])
        raise DataError(
            f"{where} has {widths[row]} numbers for item {ids[row]!r} and {widths[first]} for {ids[first]!r};"
            " vectors have one width"
        )
    flat = exploded(values.to_frame("v"), "v")["v"]
    if flat.null_count():
        row = int(np.flatnonzero(known)[int(flat.is_null().arg_max() or 0) // widths[first]])
        raise DataError(f"{where} has something else than a number in the vector of item {ids[row]!r}")
    array = np.zeros((column.len(), int(widths[first])), dtype=np.float32)
    # Numbers too large for float32 become infinite, and are refused as such.
    with np.errstate(over="ignore"):
        array[known] = flat.to_numpy().reshape(-1, widths[first])
    return array, known


def _halved(
    array: NDArray[Any], known: NDArray[np.bool_], ids: "pl.Series", where: str
) -> NDArray[np.float16]:
    """The array in half precision, block by block."""
    half = np.empty(array.shape, dtype=np.float16)
    largest = 0.0
    for start in range(0, len(array), _BLOCK):
        block = np.asarray(array[start : start + _BLOCK], dtype=np.float64)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise DataError(
                f"{where} has NaN or infinity in the vector of item {ids[row]!r}; mend or leave it out"
            )
        sizes = np.abs(block).max(axis=1)
        if sizes.max(initial=0.0) > LARGEST:
            row = start + int(sizes.argmax())
            raise DataError(
                f"{where} has {sizes.max():.3g} in the vector of item {ids[row]!r}; divide the vectors: half"
                f" precision ends at {LARGEST:,.0f}"
            )
        largest = max(largest, float(sizes.max(initial=0.0)))
        half[start : start + _BLOCK] = block
    if largest < LEAST:
        raise DataError(
            f"{where} holds no number beyond {LEAST:.1g}; multiply the vectors, half precision holds them"
        )
    return half
