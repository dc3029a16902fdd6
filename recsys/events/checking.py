"""What may be stored: ids of the types that a log has, in sizes that every store keeps."""

from collections.abc import Sequence

from recsys.errors import ArgumentError
from recsys.events.event_columns import fault_of_columns
from recsys.events.store import Event, RawId

ID_BYTES = 256
"""Most bytes of an id, a type or a request's id, as UTF-8."""

_WHOLE = range(-(2**63), 2**63)


def check_events(events: Sequence[Event]) -> None:
    """Refuse what a store could not keep or would give back otherwise.

    Raises:
        ArgumentError: which event of them, which part of it, and what may stand there.
    """
    for index, event in enumerate(events):
        fault = fault_of(event)
        if fault is not None:
            raise ArgumentError(f"event {index}: {fault}")


def fault_of(event: Event) -> str | None:
    """What keeps an event from being stored, None if nothing does."""
    for name, value in (("user", event.user), ("item", event.item)):
        fault = fault_of_id(value)
        if fault is not None:
            return f"{name}: {fault}"
    if type(event.time) is not int or event.time not in _WHOLE:
        return f"time: {event.time!r} is not unix seconds"
    for name, text in (("id", event.id), ("type", event.type), ("request_id", event.request_id)):
        if text is not None:
            fault = _fault_of_text(text)
            if fault is not None:
                return f"{name}: {fault}"
    fault = fault_of_columns(event.columns)
    return None if fault is None else f"columns: {fault}"


def fault_of_id(value: RawId) -> str | None:
    """What is wrong with a raw id, None if nothing is."""
    if type(value) is int:
        return None if value in _WHOLE else f"{value} does not fit 64 bits"
    return _fault_of_text(value)


def _fault_of_text(value: object) -> str | None:
    if not isinstance(value, str):
        return f"{value!r} is neither a whole number nor text"
    if not value:
        return "is empty"
    if "\0" in value:
        return "holds a NUL character"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "is not text that UTF-8 can write (a lone surrogate)"
    return f"is longer than {ID_BYTES} bytes" if size > ID_BYTES else None
