"""Split the events of a log: ask the split for each event's part, drop what no model could name."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.preparing.events import Events, keep_events
from recsys.datasets.splitting.parts import (
    LEFT_OUT,
    TEST,
    TRAIN,
    VALID,
    SortedLog,
    SplitBounds,
    bounds_of,
    cold_events,
)
from recsys.datasets.splitting.registry import divide
from recsys.errors import DataError


def divide_events(
    events: Events, split: str, config: Any, *, keep_cold: bool = False
) -> tuple[Events, SplitBounds, dict[str, Any]]:
    """Split sorted events.

    Args:
        events: sorted by user, then time.
        split: name of the split.
        config: its configuration.
        keep_cold: whether events with items that never train stay.

    Returns:
        The events that stay, where their parts begin, and what meta.json shall say.

    Raises:
        ArgumentError, DataError: the log cannot be split so, or all events of an own part are cold.
    """
    targets = None if events.values is None else events.values.targets
    log = SortedLog(
        offsets=events.offsets(), timestamps=events.timestamps, stated=events.parts, targets=targets
    )
    division = divide(log, split, config)
    if division.untrained is not None and not np.any(division.parts == TRAIN):
        raise division.untrained
    facts = dict(division.facts)
    events = replace(events, parts=division.parts)
    kept = keep_events(events, division.parts != LEFT_OUT)
    assert kept.parts is not None
    if division.drop_cold and keep_cold:
        cold = cold_events(kept.parts, kept.items, kept.item_ids.len())
        facts |= {"cold_events_kept": int(np.count_nonzero(cold))}
    elif division.drop_cold:
        cold = cold_events(kept.parts, kept.items, kept.item_ids.len())
        if log.stated is not None:
            _refuse_lost(kept, cold)
        warm = keep_events(kept, ~cold)
        facts |= {
            "cold_events": int(np.count_nonzero(cold)),
            "cold_items": kept.item_ids.len() - warm.item_ids.len(),
            "cold_users": kept.user_ids.len() - warm.user_ids.len(),
        }
        kept = warm
    assert kept.parts is not None
    keys = kept.keys if kept.per_second is not None else None
    return kept, bounds_of(kept.parts, kept.offsets(), keys), facts


def _refuse_lost(events: Events, cold: NDArray[np.bool_]) -> None:
    """Refuse a stated part of which nothing is left: its ids are most likely others than the log's."""
    assert events.parts is not None
    for part in (VALID, TEST):
        of_part = events.parts == part
        if of_part.any() and cold[of_part].all():
            item = events.item_ids[int(events.items[of_part][0])]
            raise lost_part(part, int(np.count_nonzero(of_part)), item)


def lost_part(part: int, events: int, item: Any) -> DataError:
    """The error for a stated part whose events all have items that never train, one of which is named."""
    name = "validation" if part == VALID else "test"
    return DataError(
        f"none of the {events} {name} events has an item with a training event,"
        f" for example {item!r}: write the ids as the training events do"
    )
