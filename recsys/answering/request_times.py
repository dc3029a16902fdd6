"""When answers are wanted: moments as people write them, in unix seconds and in each user's local seconds."""

from collections.abc import Sequence
from datetime import UTC, datetime
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.datasets.times.time_zones import COLUMN, local_to_unix, utc_offsets
from recsys.errors import ArgumentError

Array = npt.NDArray[np.int64]
_LATEST = 2**60


def is_seconds(value: Any) -> bool:
    """Whether a value is whole unix seconds that leave room for sums in int64."""
    return isinstance(value, Integral) and abs(int(value)) < _LATEST


def parse_moment(text: str) -> int | datetime:
    """Unix seconds, or an ISO 8601 date and time.

    Raises:
        ArgumentError: the text is neither.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentError(
            f"{text!r} is no moment: write unix seconds, or a date and time as 2026-03-01T08:30"
        ) from None


def ask_at(
    at: Any,
    last: Array | None,
    last_offsets: Array | None,
    zone: str | None,
    *,
    needs_local: bool,
) -> tuple[Array | None, Array | None]:
    """When each of R requests is asked, in unix seconds and in local seconds.

    Args:
        at: unix seconds, ISO text or a datetime, for all requests or a list of one each; None is the time of
            each user's last event. A datetime or text without an offset is local time of the zone.
        last: (R,) unix seconds of each history's last event, 0 where there is none; None without times.
        last_offsets: (R,) seconds from UTC to local time at those events, or None.
        zone: of the requests: IANA name or offset; None, or a column, keeps the offset of each user's last
            event.
        needs_local: whether the model has a clock.

    Returns:
        (R,) unix seconds and (R,) local seconds; None where they are not known and not needed.

    Raises:
        ArgumentError: a moment that cannot be read, or one without a zone where the model has a clock.
    """
    named = zone is not None and not zone.startswith(COLUMN)
    if at is None:
        if last is None:
            return None, None
        offsets = utc_offsets(last, str(zone)).astype(np.int64) if named else last_offsets
        return last, None if offsets is None else last + offsets
    if last is None:
        raise ArgumentError("at= needs events with times: the log carries order alone, or times= is missing")
    moments = list(at) if _is_list(at) else [at] * len(last)
    if len(moments) != len(last):
        raise ArgumentError(f"at holds {len(moments)} moments for {len(last)} requests: one, or one each")
    naive = np.zeros(len(last), dtype=bool)
    seconds = np.zeros(len(last), dtype=np.int64)
    for place, moment in enumerate(moments):
        seconds[place], naive[place] = _seconds(moment)
    if named:
        unix: Array = np.where(naive, local_to_unix(seconds, str(zone)), seconds)
        return unix, unix + utc_offsets(unix, str(zone)).astype(np.int64)
    if last_offsets is not None:
        unix = np.where(naive, seconds - last_offsets, seconds)
        return unix, unix + last_offsets
    if naive.any() or needs_local:
        raise ArgumentError(
            "the users' time zone is not known: pass time_zone= (--time-zone), or prepare the log with one"
        )
    return seconds, None


def _is_list(at: Any) -> bool:
    return isinstance(at, Sequence | np.ndarray) and not isinstance(at, str | bytes)


def _seconds(moment: Any) -> tuple[int, bool]:
    """Seconds of a moment, and whether they count local time, the moment naming no offset."""
    if isinstance(moment, str):
        moment = parse_moment(moment)
    if isinstance(moment, datetime):
        naive = moment.tzinfo is None
        return int((moment.replace(tzinfo=UTC) if naive else moment).timestamp()), naive
    if is_seconds(moment):
        return int(moment), False
    raise ArgumentError(f"at={moment!r} is no moment: give unix seconds, ISO text or a datetime")
