"""What a caller passes, checked before memory is taken for it: lists of ids, and counts."""

import itertools
import operator
import sys
import warnings
from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any

from recsys.errors import ArgumentError

MOST_IDS = 10_000_000
"""Longest list of ids in a call."""


def id_list(ids: Iterable[Any], what: str) -> list[Any]:
    """A list of raw ids from whatever holds them in one dimension: lists, sets, arrays, series, columns.

    Args:
        ids: what was passed.
        what: the argument's name.

    Raises:
        ArgumentError: a single id, a table, or more than ten million.
    """
    if isinstance(ids, str | bytes):
        raise ArgumentError(f"{what} must be a list of ids, not the single string {ids!r}: {what}=[{ids!r}]")
    if isinstance(ids, Number) or getattr(ids, "ndim", 1) == 0:
        plain = ids.item() if hasattr(ids, "item") else ids
        raise ArgumentError(f"{what} must be a list of ids, not the single id {plain!r}: {what}=[{plain!r}]")
    if hasattr(ids, "columns") or isinstance(ids, Mapping) or getattr(ids, "ndim", 1) > 1:
        raise ArgumentError(
            f"{what} must be a list of ids, not a {type(ids).__name__}: pass one column of it"
        )
    if not isinstance(ids, Iterable):
        raise ArgumentError(f"{what} must be a list of ids, not {short(ids)}")
    _check_length(ids, what)
    for name in ("tolist", "to_list", "to_pylist"):
        if hasattr(ids, name):
            return getattr(ids, name)()  # type: ignore[no-any-return]
    found = list(itertools.islice(ids, MOST_IDS + 1))
    if len(found) > MOST_IDS:
        raise _too_many(what)
    return found


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """A count as int.

    Raises:
        ArgumentError: not a whole number, or less than `least`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ArgumentError(f"{name} = {short(value)} must be a whole number")
    if number < least:
        raise ArgumentError(f"{name} = {number} must be at least {least}")
    return number


def check_room(rows: int, columns: int, bytes_each: int = 12, most: int = 16 * 2**30) -> None:
    """Refuse answers that no memory holds.

    Args:
        rows: requests.
        columns: answers of each.
        bytes_each: of an answer: its id and its score.
        most: bytes that may be taken.

    Raises:
        ArgumentError: they would take more.
    """
    if rows * columns * bytes_each > most:
        gib = rows * columns * bytes_each / 2**30
        raise ArgumentError(
            f"{columns:,} answers for each of {rows:,} requests take {gib:,.0f} GiB: lower k, or ask for "
            "fewer at once (score: part_users)"
        )


def warn_caller(message: str) -> None:
    """Warn as of the line outside this package that made the call, however deep the call went.

    Args:
        message: one line.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "recsys":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _check_length(ids: Any, what: str) -> None:
    try:
        length = len(ids) if hasattr(ids, "__len__") else 0
    except OverflowError:
        length = MOST_IDS + 1
    if length > MOST_IDS:
        raise _too_many(what)


def _too_many(what: str) -> ArgumentError:
    return ArgumentError(f"{what} holds more than {MOST_IDS:,} ids: pass them in several calls")


def short(value: Any) -> str:
    """A value in one line of at most 60 characters."""
    text = (repr(value).splitlines() or [""])[0]
    return text if len(text) <= 60 else f"{text[:57]}..."
