"""The arrays of a prepared dataset that its events give."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.preparing.events import Events
from recsys.datasets.splitting.parts import SplitBounds
from recsys.datasets.times.time_zones import offsets_of_column, utc_offsets, zone_column

__all__ = ["event_arrays"]


def event_arrays(events: Events, bounds: SplitBounds, time_zone: str | None) -> dict[str, NDArray[Any]]:
    """Arrays by name, as `recsys.datasets.prepared.store.SequenceStore` describes them.

    Args:
        events: sorted, as they stay.
        bounds: of their split.
        time_zone: of the users, or where a column has it; None if unknown.
    """
    timestamps = events.timestamps
    arrays: dict[str, NDArray[Any]] = {"items": events.items, "offsets": events.offsets()}
    if timestamps is not None:
        arrays["timestamps"] = timestamps
        if time_zone is not None:
            arrays["utc_offsets"] = _utc_offsets(timestamps, events, time_zone)
    return arrays | {"valid_start": bounds.valid_start, "test_start": bounds.test_start}


def _utc_offsets(timestamps: NDArray[np.int64], events: Events, zone: str) -> NDArray[np.int32]:
    column = zone_column(zone)
    if column is None:
        return utc_offsets(timestamps, zone)
    assert events.zones is not None
    return offsets_of_column(timestamps, events.zones, list(events.zone_names), column)
