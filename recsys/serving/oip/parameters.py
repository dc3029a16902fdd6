"""Parameters of a request: what is asked beside its tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from recsys.events.event_columns import ColumnValue, fault_of_columns
from recsys.serving.http.schemas import MOST_K
from recsys.serving.oip.errors import ProtocolError
from recsys.serving.oip.models import Kind

_TAKEN: dict[Kind, tuple[str, ...]] = {
    "recommend": ("k", "exclude_seen", "category", "at", "time_zone", "context", "timeout"),
    "recommend_history": ("k", "exclude_seen", "category", "at", "time_zone", "context", "timeout"),
    "similar": ("k", "timeout"),
    "encode": ("timeout",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """Checked parameters.

    Attributes:
        k: answers of each row.
        exclude_seen: leave out what a history holds.
        category: only items of one of these; None is all.
        at: when the answers are wanted.
        time_zone: of the request.
        context: what is known of all of its rows, by the name of a request or user column.
        timeout: seconds until the answer is of no use any more; None leaves that to the service.
    """

    k: int = 10
    exclude_seen: bool = True
    category: tuple[str, ...] | None = None
    at: int | float | str | None = None
    time_zone: str | None = None
    context: dict[str, ColumnValue] | None = None
    timeout: float | None = None


def read_parameters(given: Mapping[str, Any], kind: Kind) -> Parameters:
    """Parameters of a request for a kind of model; `timeout` is given in microseconds, as Triton has it.

    Raises:
        ProtocolError: one is unknown or has no right value.
    """
    for name in given:
        if name not in _TAKEN[kind]:
            raise ProtocolError(f"unknown parameter '{name}': this model takes {', '.join(_TAKEN[kind])}")
    k = given.get("k", 10)
    if type(k) is not int or not 1 <= k <= MOST_K:
        raise ProtocolError(f"parameter 'k' must be a whole number from 1 to {MOST_K}")
    exclude_seen = given.get("exclude_seen", True)
    if not isinstance(exclude_seen, bool):
        raise ProtocolError("parameter 'exclude_seen' must be true or false")
    at = given.get("at")
    if at is not None and type(at) not in (int, float, str):
        raise ProtocolError("parameter 'at' must be unix seconds or ISO text")
    time_zone = given.get("time_zone")
    if time_zone is not None and not isinstance(time_zone, str):
        raise ProtocolError("parameter 'time_zone' must be a name, such as 'Europe/Berlin'")
    timeout = given.get("timeout")
    if timeout is not None and (type(timeout) is not int or timeout < 0):
        raise ProtocolError("parameter 'timeout' must be a number of microseconds")
    return Parameters(
        k=k,
        exclude_seen=exclude_seen,
        category=_category(given.get("category")),
        at=at,
        time_zone=time_zone,
        context=_context(given.get("context")),
        timeout=timeout / 1e6 if timeout else None,  # 0 is none, as for Triton
    )


def _context(found: object) -> dict[str, ColumnValue] | None:
    """An object of columns, or its JSON text, for clients whose parameters are scalars."""
    if found is None:
        return None
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = None
    fault = "is no object" if not isinstance(found, dict) else fault_of_columns(found)
    if fault is not None:
        raise ProtocolError(f"parameter 'context' {fault}: give columns and their values")
    return cast("dict[str, ColumnValue]", found)


def _category(found: object) -> tuple[str, ...] | None:
    """One name, or a list of them."""
    if found is None:
        return None
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ProtocolError("parameter 'category' must be a name or a list of names")
    return tuple(names)
