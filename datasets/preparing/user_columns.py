"""What is known of users: read from the log or from a file of users, and coded by what trains."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.preparing.event_options import EventOptions
from recsys.datasets.preparing.event_values import ColumnValues, coded, column_values
from recsys.datasets.preparing.events import Events
from recsys.datasets.reading.item_metadata import as_ids
from recsys.datasets.reading.user_file import UserFile
from recsys.datasets.schema import USER
from recsys.datasets.splitting.parts import SplitBounds
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["CodedUsers", "code_users"]

_FEW_VALUES = 64
"""Distinct words that any column may have, however few the users."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CodedUsers:
    """The user columns of a log.

    Attributes:
        codes: (U, C) int32.
        record: what meta.json shall say of each column.
        facts: counts for meta.json.
    """

    codes: NDArray[np.int32]
    record: list[dict[str, Any]]
    facts: dict[str, Any]


def code_users(
    events: Events,
    bounds: SplitBounds,
    options: EventOptions,
    file: UserFile | None,
    label: str,
) -> CodedUsers | None:
    """Code the user columns that were asked for; None where none were.

    Of a log a user's value is the last one that a training event has: nothing of held-out events is read.

    Args:
        events: sorted, as they stay.
        bounds: of their split.
        options: what is asked for.
        file: of users, or None where the log has the columns.
        label: of the log, for messages.

    Raises:
        DataError: no user with a training event has a value, or a column names users.
    """
    if not options.of_users:
        return None
    offsets = events.offsets()
    facts: dict[str, Any] = {}
    found: dict[str, ColumnValues] = {}
    if file is not None:
        label = file.label
        rows = _rows_of(file, events.user_ids)
        facts["users_in_file"] = int(rows["__known"].sum())
        found = {name: column_values(rows[name], f"{label}: column {name!r}") for name in options.of_users}
    else:
        assert events.values is not None
        several: dict[str, int] = {}
        for name in options.of_users:
            found[name], changed = _last_of_training(events.values.columns[name], bounds, offsets)
            several |= {name: changed} if changed else {}
        facts |= {"users_of_several_values": several} if several else {}
    trains = np.asarray(bounds.valid_start) > offsets[:-1]
    codes, record = [], []
    for name, values in found.items():
        _refuse_names(values, f"{label}: column {name!r}")
        column, own = coded(name, values, trains, label)
        codes.append(own)
        record.append(column.record())
    return CodedUsers(codes=np.stack(codes, axis=1), record=record, facts=facts)


def _last_of_training(
    values: ColumnValues, bounds: SplitBounds, offsets: NDArray[np.int64]
) -> tuple[ColumnValues, int]:
    """The last value of each user's training events, and how many users have several."""
    n_users = len(offsets) - 1
    known = values.codes >= 0 if values.codes is not None else ~np.isnan(_numbers(values))
    places = np.flatnonzero(known)
    owner = np.searchsorted(offsets, places, side="right") - 1
    trains = places < np.asarray(bounds.valid_start)[owner]
    places, owner = places[trains], owner[trains]
    last = np.full(n_users, -1, dtype=np.int64)
    np.maximum.at(last, owner, places)
    given = values.codes if values.codes is not None else _numbers(values)
    turns = (owner[1:] == owner[:-1]) & (given[places[1:]] != given[places[:-1]])
    changed = len(np.unique(owner[1:][turns]))
    nobody = last < 0
    if values.codes is not None:
        codes = values.codes[last]
        codes[nobody] = -1
        return ColumnValues(codes=codes, words=values.words), changed
    numbers = _numbers(values)[last]
    numbers[nobody] = np.nan
    return ColumnValues(numbers=numbers), changed


def _numbers(values: ColumnValues) -> NDArray[np.float64]:
    assert values.numbers is not None
    return values.numbers


def _rows_of(file: UserFile, user_ids: "pl.Series") -> "pl.DataFrame":
    """A row of the file for each user of the log, empty where it knows none."""
    import polars as pl

    ids = as_ids(file.frame[USER], user_ids)
    frame = file.frame.with_columns(ids.alias(USER), __known=True).drop_nulls(USER)
    twice = frame.filter(pl.col(USER).is_duplicated())
    if twice.height:
        first = twice[USER][0]
        lines = int((twice[USER] == first).sum())
        raise DataError(f"{file.label}: user {first!r} has {lines} lines; keep one line of each user")
    rows = user_ids.alias(USER).to_frame().join(frame, on=USER, how="left", maintain_order="left")
    if not rows["__known"].any():
        raise DataError(
            f"{file.label}: knows none of the {user_ids.len():,} users; its ids are like"
            f" {file.frame[USER][0]!r}, those of the log like {user_ids[0]!r}"
        )
    return rows


def _refuse_names(values: ColumnValues, where: str) -> None:
    """Refuse a column that has next to a value of its own for every user."""
    if values.codes is None:
        return
    known = int(np.count_nonzero(values.codes >= 0))
    distinct = len(np.unique(values.codes[values.codes >= 0]))
    if distinct > _FEW_VALUES and 2 * distinct > known:
        raise DataError(
            f"{where} holds {distinct:,} distinct values for {known:,} users: it names users, of whom nothing"
            " could be learned for others; leave it out, or group its values"
        )
