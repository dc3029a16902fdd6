"""Local times of a prepared log's events, and why a log may have none that a clock could read."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from typing import Any

    from recsys.datasets.prepared.store import SequenceStore

DAY_S = 86_400

MOST_AT_MIDNIGHT = 0.95
"""Share of events at one midnight, UTC or local, from which on stamps are taken for dates without hours."""


def local_times(
    store: "SequenceStore", rows: NDArray[np.int64] | slice = slice(None)
) -> NDArray[np.int64] | None:
    """Local seconds of the events at `rows` (unix seconds plus the zone's offset); None without a zone."""
    if store.timestamps is None or store.utc_offsets is None:
        return None
    found: NDArray[np.int64] = store.timestamps[rows] + store.utc_offsets[rows]
    return found


def local_hours(store: "Any", rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Local hour, 0 to 23, of the events at `rows`; None where the log does not tell it.

    Args:
        store: a `SequenceStore`, or another prepared log, which may know nothing of time zones.
        rows: (n,) positions.
    """
    if getattr(store, "utc_offsets", None) is None or not has_local_hours(store):
        return None
    found = local_times(store, rows)
    return None if found is None else np.asarray(found // 3600 % 24, dtype=np.int64)


def has_local_hours(store: "SequenceStore") -> bool:
    """Whether the local hours of a log's events are known; see `require_local_times`."""
    try:
        require_local_times(store)
    except ConfigError:
        return False
    return True


def at_midnight(seconds: NDArray[np.int64]) -> int:
    """How many of these times are midnights."""
    return int(np.count_nonzero(seconds % DAY_S == 0))


def require_local_times(store: "SequenceStore", remedy: str = "train without clock=True") -> None:
    """Refuse a log whose events have no local hour that could be read.

    Args:
        store: of the log.
        remedy: what helps beside another log.

    Raises:
        ConfigError: the log carries order alone, gives days without hours, or was prepared without a time
            zone; one line with the reason and the remedy.
    """
    if not store.has_times:
        raise ConfigError(
            f"{store.path}: the log carries order alone, and a clock reads hours: {remedy}, or prepare a log "
            "with a timestamp column"
        )
    time = store.meta.get("time") or {}
    share = float(time.get("midnight_share", 0.0))
    apart = time.get("granularity") in ("day", "week")
    if apart or share >= MOST_AT_MIDNIGHT:
        why = "all at one time of day" if apart else f"{share:.0%} of events at midnight"
        raise ConfigError(
            f"{store.path}: its timestamps are days without hours ({why}), and a "
            f"clock reads hours: {remedy}, or prepare a log with times of day"
        )
    if not store.has_zones:
        raise ConfigError(
            f"{store.path}: the users' time zone is not known, and a clock reads local hours: prepare the "
            "log with time_zone= (America/New_York, +05:30 or column:NAME), or " + remedy
        )
