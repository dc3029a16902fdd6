"""The options of a preparation, as meta.json records them to tell one prepared dataset from another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.datasets.prepared.files import sha256_of
from recsys.errors import ArgumentError, DataError

SPLITS = ("leave-one-out", "temporal")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """All that decides the result besides the log's bytes; recorded in meta.json."""

    split: str
    min_user_events: int
    min_item_events: int
    valid_fraction: float | None
    test_fraction: float | None
    valid_time: int | None
    test_time: int | None
    time_zone: str | None
    items_sha256: str | None
    format: str | None
    user_column: str | None
    item_column: str | None
    timestamp_column: str | None
    time_unit: str | None
    separator: str | None
    header: bool | None

    def reading(self) -> dict[str, Any]:
        """The options of `open_log`."""
        return {
            "format": self.format,
            "user_column": self.user_column,
            "item_column": self.item_column,
            "timestamp_column": self.timestamp_column,
            "time_unit": self.time_unit,
            "separator": self.separator,
            "header": self.header,
        }


def least(name: str, own: int | None, both: int | None) -> int:
    """The minimum that holds for one side: its own, else the one for both, else 0.

    Raises:
        ArgumentError: it is negative.
    """
    value = own if own is not None else both
    if value is not None and value < 0:
        raise ArgumentError(
            f"{name if own is not None else 'min_events'}={value} is negative: pass 0 to keep all"
        )
    return value or 0


def file_sha256(path: Path | None) -> str | None:
    """Hex sha256 of the item file, or None without one.

    Raises:
        DataError: the file cannot be read.
    """
    if path is None:
        return None
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; check the path of the item file") from None
