"""Local time of events: how many seconds to add to a timestamp, from a zone, an offset or a column."""

import re
import zoneinfo
from datetime import datetime, timedelta
from datetime import timezone as fixed_zone

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError

_OFFSET = re.compile(r"^(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?$")


def check_time_zone(zone: str) -> str:
    """Refuse a zone that is neither a name of the IANA database nor an offset like ``+05:30``.

    Raises:
        ArgumentError: the zone is unknown.
    """
    _zone(zone)
    return zone


def utc_offsets(timestamps: NDArray[np.int64], zone: str) -> NDArray[np.int32]:
    """Seconds to add to each timestamp for local time.

    Args:
        timestamps: (N,) int64 unix seconds.
        zone: IANA name such as ``America/New_York`` (daylight saving is followed) or ``+HH:MM``.

    Returns:
        (N,) int32.

    Raises:
        ArgumentError: the zone is unknown.
    """
    local = _zone(zone)
    # Offsets change at most once a quarter of an hour, so one answer serves all events of a quarter.
    quarters, place = np.unique(timestamps // 900, return_inverse=True)
    answers = [_offset_s(int(quarter) * 900, local) for quarter in quarters]
    found: NDArray[np.int32] = np.array(answers, dtype=np.int32)[place]
    return found


def _offset_s(moment: int, local: zoneinfo.ZoneInfo | fixed_zone) -> int:
    offset = datetime.fromtimestamp(moment, local).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def _zone(zone: str) -> zoneinfo.ZoneInfo | fixed_zone:
    found = _OFFSET.match(zone.strip())
    if found:
        sign = -1 if found[1] == "-" else 1
        offset = sign * timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        if abs(offset) <= timedelta(hours=14):
            return fixed_zone(offset)
    else:
        try:
            return zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise ArgumentError(
        f"time_zone={zone!r} is not known: write an IANA name such as America/New_York, or +HH:MM"
    )
