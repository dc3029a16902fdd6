"""What was answered to whom: kept beside the events that came of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from recsys.events.store import RawId

KEPT = 1_000_000
"""Newest exposures that a store keeps; older ones make room."""

SKEW = 60
"""Seconds by which the clocks of those who answer and of those who erase may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """An answer that was sent, or that a shadow would have sent.

    Attributes:
        request_id: of the answer; events that came of it name it.
        user: raw id; None for a history of nobody.
        model: name of the model.
        version: of it.
        items: raw ids, best first.
        time: unix seconds.
        shadow: whether it was computed beside and not sent.
    """

    request_id: str
    user: RawId | None
    model: str
    version: str
    items: tuple[RawId, ...]
    time: int
    shadow: bool = False


@runtime_checkable
class ExposureStore(Protocol):
    """Exposures beside events. Methods may be called from any thread and any process."""

    def expose(self, exposures: Sequence[Exposure]) -> None:
        """Keep exposures, all of them or none; the newest `KEPT` stay.

        Those of a user who was erased after they were made, or less than `SKEW` seconds before, are not kept:
        they may have waited while the erasure went by.

        Raises:
            EventStoreError: they could not be written.
        """
        ...

    def exposures(self) -> Iterator[list[Exposure]]:
        """All that are kept, oldest first, in parts of bounded size."""
        ...


def items_text(items: Sequence[RawId]) -> str:
    """Items as a column of text; 1 and "1" stay two."""
    return json.dumps(items, ensure_ascii=True, separators=(",", ":"))


def items_of(text: str) -> tuple[RawId, ...]:
    """Items of `items_text`."""
    return tuple(json.loads(text))
