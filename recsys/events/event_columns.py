"""What came with an event besides its item and time: checked, and as the text that a store keeps."""

import json
import math
from collections.abc import Mapping

__all__ = [
    "MOST_COLUMNS",
    "RESERVED",
    "ColumnValue",
    "columns_of",
    "columns_text",
    "fault_of_columns",
    "word_of",
]

ColumnValue = str | int | float | bool | None

MOST_COLUMNS = 32
"""Columns of one event."""

MOST_BYTES = 256
"""Of a name or a text, as UTF-8."""

RESERVED = ("user_id", "item_id", "timestamp", "type", "request_id")
"""Columns that an exported log has of its own."""


def fault_of_columns(columns: object) -> str | None:
    """What keeps columns from being stored, None if nothing does."""
    if columns is None:
        return None
    if not isinstance(columns, Mapping):
        return "is no mapping of names to values"
    if len(columns) > MOST_COLUMNS:
        return f"has {len(columns)} columns, and {MOST_COLUMNS} are the most"
    for name, value in columns.items():
        fault = _fault_of_text(name)
        if fault is None and not str(name).strip():
            fault = "is empty"
        if fault is None and name in RESERVED:
            fault = "is a name that logs have already"
        if fault is None and isinstance(value, str):
            fault = _fault_of_text(value)
        elif fault is None and isinstance(value, float):
            fault = None if math.isfinite(value) else f"holds {value}"
        elif fault is None and type(value) is int:
            fault = None if -(2**63) <= value < 2**63 else "does not fit 64 bits"
        elif fault is None and not (value is None or isinstance(value, bool)):
            fault = "is neither text, a number, true or false"
        if fault is not None:
            return f"{str(name)[:64]!r} {fault}"
    return None


def _fault_of_text(text: object) -> str | None:
    if not isinstance(text, str):
        return "is no text"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not text that UTF-8 can write (a lone surrogate)"
    if "\0" in text:
        return "holds a NUL character"
    return f"is longer than {MOST_BYTES} bytes" if size > MOST_BYTES else None


def columns_text(columns: Mapping[str, ColumnValue] | None) -> str | None:
    """Columns as a store keeps them; None for none."""
    return json.dumps(dict(columns), ensure_ascii=False, allow_nan=False) if columns else None


def columns_of(text: str | None) -> dict[str, ColumnValue] | None:
    """The columns of such a text."""
    if text is None:
        return None
    found: dict[str, ColumnValue] = json.loads(text)
    return found


def word_of(value: ColumnValue) -> str | None:
    """A value as a log's column of text has it."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
