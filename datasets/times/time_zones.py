"""Local time of events: how many seconds to add to a timestamp, from a zone, an offset or a column."""

import re
import zoneinfo
from datetime import datetime, timedelta
from datetime import timezone as fixed_zone

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError

COLUMN = "column:"
"""What a zone begins with that is to be read from a column of the log."""

MOST_MINUTES = 14 * 60
"""Furthest that a local time is from UTC."""

_OFFSET = re.compile(r"^(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?$")


def check_time_zone(zone: str) -> str:
    """Refuse a zone that is neither a name of the IANA database, an offset like ``+05:30`` nor a column.

    Raises:
        ArgumentError: the zone is unknown.
    """
    if not isinstance(zone, str):
        raise ArgumentError(f"time_zone={zone!r} is no text: write an IANA name, +HH:MM or column:NAME")
    if not zone.startswith(COLUMN) or not zone_column(zone):
        _zone(zone)
    return zone


def zone_column(zone: str | None) -> str | None:
    """Name of the column that ``column:NAME`` means; None for other zones."""
    return zone.removeprefix(COLUMN) if zone is not None and zone.startswith(COLUMN) else None


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


def offsets_of_column(
    timestamps: NDArray[np.int64], codes: NDArray[np.int32], zones: list[str], column: str
) -> NDArray[np.int32]:
    """Seconds to add to each timestamp where every event names its own zone.

    Args:
        timestamps: (N,) int64 unix seconds.
        codes: (N,) place of each event's zone in `zones`.
        zones: distinct values of the column: IANA names, offsets as +05:30, or whole minutes east of UTC.
        column: its name, for messages.

    Returns:
        (N,) int32.

    Raises:
        ArgumentError: a value is missing or none of these, or all numbers are so small that they are hours.
    """
    minutes = [_minutes(zone) for zone in zones]
    numbers = [number for number in minutes if number is not None]
    wrong = [number for number in numbers if abs(number) > MOST_MINUTES]
    if wrong:
        raise ArgumentError(
            f"time_zone: column {column!r} holds {wrong[0]}, but its numbers are minutes east of UTC, at "
            f"most {MOST_MINUTES}: convert them to minutes"
        )
    if any(numbers) and max(abs(number) for number in numbers) <= 14:
        raise ArgumentError(
            f"time_zone: column {column!r} holds numbers up to {max(map(abs, numbers))}, which are hours; "
            "its numbers are minutes east of UTC: multiply them by 60, or write +HH:MM"
        )
    found = np.zeros(len(timestamps), dtype=np.int32)
    for code, (zone, number) in enumerate(zip(zones, minutes, strict=True)):
        inside = codes == code
        if number is not None:
            found[inside] = number * 60
        else:
            try:
                found[inside] = utc_offsets(timestamps[inside], zone)
            except ArgumentError:
                raise ArgumentError(
                    f"time_zone: column {column!r} holds {zone!r}: write an IANA name, +HH:MM or minutes"
                ) from None
    return found


def local_to_unix(local: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """Unix seconds of local times (N,); of an hour that comes twice, one of the two."""
    near = local - utc_offsets(local, zone)
    found: NDArray[np.int64] = local - utc_offsets(near, zone)
    return found


def _minutes(zone: str) -> int | None:
    try:
        number = float(zone)
    except ValueError:
        return None
    # +0530 and -0300 are offsets, not numbers of minutes.
    is_offset = zone.strip()[:1] in "+-" and len(zone.strip()) == 5
    return int(number) if number.is_integer() and not is_offset else None


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
