"""What a prepared dataset knows of its events besides item and time: columns as codes, weights, targets.

Files, each optional, over N events: ``event_codes.npy`` int32 (N, E), columns of what came with an event;
``request_codes.npy`` int32 (N, R), columns of what was known when the event was still to come;
``event_weights.npy`` float32 (N,), how much an event counts in training; ``event_targets.npy`` bool (N,),
events that are predicted, the others being context. Over U users: ``user_codes.npy`` int32 (U, C), columns of
what is known of users. Code 0 is a value that is missing or that no training event has; what the others mean
stands in meta.json under ``event_columns``.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError

__all__ = ["EVENT_ARRAYS", "MISSING", "EventColumn", "EventColumns", "check_event_arrays", "columns_digest"]

EVENT_ARRAYS: dict[str, type[np.generic]] = {
    "event_codes": np.int32,
    "request_codes": np.int32,
    "event_weights": np.float32,
    "event_targets": np.bool_,
}
"""Arrays by name."""

MISSING = 0
"""Code of a value that is missing, or that no training event has."""


@dataclass(frozen=True, kw_only=True)
class EventColumn:
    """What the codes of one column mean.

    Attributes:
        name: of the log's column.
        values: of a column of words, those of code 1, 2 and so on; None for numbers.
        edges: of a column of numbers, rising: code 1 is below the first, 2 from there to below the second,
            and so on; None for words.
    """

    name: str
    values: tuple[str, ...] | None = None
    edges: tuple[float, ...] | None = None

    @property
    def n_codes(self) -> int:
        """Codes that there are, the missing one among them."""
        return 1 + len(self.values) if self.values is not None else 2 + len(self.edges or ())

    def codes(self, given: Iterable[Any]) -> NDArray[np.int32]:
        """(n,) int32 codes of raw values; None, text without a number, and unknown words are missing."""
        if self.values is not None:
            return np.array([self._place(value) for value in given], dtype=np.int32)
        numbers = np.array([_number(value) for value in given], dtype=np.float64)
        return codes_of_numbers(numbers, np.array(self.edges, dtype=np.float64))

    def _place(self, value: Any) -> int:
        place = self._places.get(_word(value), MISSING)
        if place == MISSING and isinstance(value, bool | np.bool_):  # a log's booleans are true and false
            place = self._places.get(str(value).lower(), MISSING)
        return place

    @cached_property
    def _places(self) -> dict[str, int]:
        return {value: place for place, value in enumerate(self.values or (), 1)}

    def record(self) -> dict[str, Any]:
        """As meta.json holds it."""
        if self.values is not None:
            return {"name": self.name, "values": list(self.values)}
        return {"name": self.name, "edges": list(self.edges or ())}

    def described(self) -> str:
        """In a few words."""
        n = self.n_codes - 1
        kind = "value" if self.values is not None else "range"
        return f"{self.name} ({n:,} {kind}{'s' if n != 1 else ''})"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EventColumns:
    """What the codes of a prepared dataset mean.

    Attributes:
        events: E columns of what came with an event, read once it has happened.
        requests: R columns of what is known when an answer is asked for.
        users: C columns of what is known of users.
        digest: hex sha256 of all of it.
    """

    events: tuple[EventColumn, ...]
    requests: tuple[EventColumn, ...]
    digest: str
    users: tuple[EventColumn, ...] = ()

    @classmethod
    def of(cls, folder: Path, meta: Mapping[str, Any]) -> "EventColumns | None":
        """The columns that a meta.json describes; None where it describes none.

        Raises:
            DataError: it describes them in a way that is not known, or was edited.
        """
        record = meta.get("event_columns")
        if record is None:
            return None
        try:
            events, requests, users = (
                tuple(_read_column(column) for column in record.get(role, ()))
                for role in ("events", "requests", "users")
            )
            digest = columns_digest(record)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{folder}: its event columns are damaged; prepare the log again") from None
        if digest != meta["ids"].get("event_columns"):
            raise DataError(f"{folder}: its event columns were edited (sha256); prepare the log again")
        return cls(events=events, requests=requests, digest=digest, users=users)


def columns_digest(record: Mapping[str, Any]) -> str:
    """Hex sha256 of what meta.json says of event columns."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def codes_of_numbers(numbers: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int32]:
    """(n,) int32 codes of numbers cut at edges; one that is not a number is missing."""
    codes = np.searchsorted(edges, numbers, side="right").astype(np.int32) + 1
    codes[np.isnan(numbers)] = MISSING
    return codes


def check_event_arrays(
    folder: Path,
    arrays: Mapping[str, NDArray[Any] | None],
    columns: EventColumns | None,
    n_events: int,
    n_users: int,
) -> None:
    """Refuse arrays that do not fit the events, the users or the columns.

    Args:
        folder: of the dataset, for messages.
        arrays: by name, None for one that is not there.
        columns: what the codes mean.
        n_events: N.
        n_users: U.

    Raises:
        DataError: it names the file.
    """
    for name, described in (
        ("event_codes", () if columns is None else columns.events),
        ("request_codes", () if columns is None else columns.requests),
        ("user_codes", () if columns is None else columns.users),
    ):
        codes = arrays.get(name)
        width = 0 if codes is None else codes.shape[1]
        if width != len(described):
            raise _damaged(folder, name, f"holds {width} columns, {len(described)} belong there")
        if codes is not None and len(codes):
            least, most = codes.min(axis=0), codes.max(axis=0)
            for place, column in enumerate(described):
                if least[place] < 0 or most[place] >= column.n_codes:
                    raise _damaged(
                        folder, name, f"a code of {column.name!r} lies outside [0, {column.n_codes})"
                    )
    for name in EVENT_ARRAYS:
        array = arrays.get(name)
        if array is not None and len(array) != n_events:
            raise _damaged(folder, name, f"holds {len(array)} events, {n_events} belong there")
    of_users = arrays.get("user_codes")
    if of_users is not None and len(of_users) != n_users:
        raise _damaged(folder, "user_codes", f"holds {len(of_users)} users, {n_users} belong there")
    weights = arrays.get("event_weights")
    if weights is not None and not bool((np.isfinite(weights) & (weights >= 0)).all()):
        raise _damaged(folder, "event_weights", "a weight is no number of 0 or more")


def _read_column(record: Mapping[str, Any]) -> EventColumn:
    if "values" in record:
        return EventColumn(name=str(record["name"]), values=tuple(map(str, record["values"])))
    return EventColumn(name=str(record["name"]), edges=tuple(map(float, record["edges"])))


def _word(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _number(value: Any) -> float:
    try:
        number = float("nan" if value is None else value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number


def _damaged(folder: Path, name: str, what: str) -> DataError:
    return DataError(f"{folder / name}.npy: {what}; prepare the log again")
