"""Facts about a prepared dataset that a reader of its figures needs, as plain values for meta.json."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.preparing.events import Events
from recsys.datasets.times.local_times import midnight_share

_STEPS_S = (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60))


def describe_events(events: Events, offsets: NDArray[np.int64]) -> dict[str, Any]:
    """Counts, density, repeats and ties of sorted events."""
    n_users, n_items, n_events = events.user_ids.len(), events.item_ids.len(), len(events.users)
    pairs = np.sort(events.users.astype(np.int64) * n_items + events.items)
    repeats = int(np.count_nonzero(pairs[1:] == pairs[:-1]))
    facts = {
        "users": n_users,
        "items": n_items,
        "events": n_events,
        "density": n_events / (n_users * n_items),
        "repeated_events": repeats,
        "tied_events": None,
    }
    if events.per_second is not None:
        same = (events.users[1:] == events.users[:-1]) & (events.keys[1:] == events.keys[:-1])
        tied = np.zeros(n_events, dtype=bool)
        tied[1:] = same
        tied[:-1] |= same
        facts["tied_events"] = int(np.count_nonzero(tied))
    return facts


def describe_lengths(offsets: NDArray[np.int64]) -> dict[str, float | int]:
    """Events a user: least, median, mean, most."""
    lengths = np.diff(offsets)
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "mean": float(lengths.mean()),
        "max": int(lengths.max()),
    }


def describe_time(
    timestamps: NDArray[np.int64] | None, time_zone: str | None, offsets: NDArray[np.int32] | None = None
) -> dict[str, Any] | None:
    """First and last event, and the coarsest unit that all times are whole multiples of, apart from a shift.

    The shift allows for days that begin at a local midnight, or minutes counted from an odd second. Hours
    of the day mean nothing where the granularity is a day or more, or nearly all events are at midnight.
    """
    if timestamps is None:
        return None
    first = int(timestamps.min())
    since = timestamps - first
    granularity = next((name for name, step in _STEPS_S if not np.any(since % step)), "second")
    if not since.any():
        granularity = "second"  # one moment shows no step
    return {
        "first": first,
        "last": int(timestamps.max()),
        "granularity": granularity,
        "midnight_share": midnight_share(timestamps, offsets),
        "time_zone": time_zone,
    }
