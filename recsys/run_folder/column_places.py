"""Columns of a log beside those of the log before: which code of the one is which of the other."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.event_columns import MISSING, EventColumn, EventColumns
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.configuration import EncoderConfig
from recsys.encoders.event_columns import LOCAL_HOUR
from recsys.errors import DataError
from recsys.training.growing import RowPlaces

__all__ = ["column_places"]

_TABLES = {
    "event_columns": ("events", "event_columns.weight"),
    "request_columns": ("requests", "request_columns.weight"),
    "user_columns": ("users", "user_input.weight", "user_output.weight"),
}
"""By the setting that names columns: what a log calls them, and the tables of an encoder."""


def column_places(
    config: EncoderConfig, before: SequenceStore, now: SequenceStore, name: str, run: object
) -> dict[str, RowPlaces]:
    """Where the rows of an encoder's columns were, by the name of the table; empty where it reads none.

    Values go by their words. A range of numbers goes by its lower end, to the range that held that number.

    Args:
        config: of the encoder.
        before: the data that it was trained on.
        now: those that it goes on with.
        name: of the log, for messages.
        run: that goes on, likewise.

    Raises:
        DataError: the log lacks a column, or has words where there were numbers.
    """
    found: dict[str, RowPlaces] = {}
    for setting, (role, *tables) in _TABLES.items():
        wanted = [column for column in getattr(config, setting) if column != LOCAL_HOUR]
        if not wanted:
            continue
        there, here = _by_name(before.event_columns, role), _by_name(now.event_columns, role)
        for column in wanted:
            if column not in here:
                raise DataError(
                    f"{name}: keeps no column {column!r}, which {run} reads; prepare the log with "
                    f"{setting}={','.join(wanted)}"
                )
            if (here[column].values is None) != (there[column].values is None):
                kinds = ("numbers", "words") if here[column].values is None else ("words", "numbers")
                raise DataError(
                    f"{name}: column {column!r} holds {kinds[0]}, and {run} was trained with {kinds[1]}; "
                    "give it the same kind of values, or train anew"
                )
        places = _rows([there[column] for column in wanted], [here[column] for column in wanted])
        found |= dict.fromkeys(tables, places)
    return found


def _by_name(columns: EventColumns | None, role: str) -> dict[str, EventColumn]:
    return {} if columns is None else {column.name: column for column in getattr(columns, role)}


def _rows(before: Sequence[EventColumn], now: Sequence[EventColumn]) -> RowPlaces:
    rows, missing, start = [], [], 0
    for old, new in zip(before, now, strict=True):
        codes = _codes(old, new)
        rows.append(np.where(codes < 0, -1, start + codes))
        missing.append(np.full(len(codes), start + MISSING, dtype=np.int64))
        start += old.n_codes
    return RowPlaces(rows=np.concatenate(rows), otherwise=np.concatenate(missing))


def _codes(old: EventColumn, new: EventColumn) -> NDArray[np.int64]:
    """(n,) codes of the old column for each of the new one, -1 for a word that it did not know."""
    if new.values is not None:
        known = old.codes(new.values).astype(np.int64)
        known[known == MISSING] = -1
    else:
        edges = np.array(new.edges or (), dtype=np.float64)
        # Below the first edge there is no lower end: just below it, or anywhere where there is no edge.
        below = np.nextafter(edges[:1], -np.inf) if len(edges) else np.array([-np.inf])
        known = old.codes(np.concatenate((below, edges))).astype(np.int64)
    return np.concatenate(([MISSING], known))
