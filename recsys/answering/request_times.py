"""When answers are wanted: moments as people write them, in unix seconds and in each user's local seconds."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.answering.arguments import MOST_IDS, short
from recsys.datasets.times.time_zones import COLUMN, local_to_unix, utc_offsets
from recsys.errors import ArgumentError

Array = npt.NDArray[np.int64]
_NUMBERS = (int, float, np.integer, np.floating)

DAY = 86_400
EARLIEST = -62_135_596_800 + 2 * DAY
"""The year 1, with room for any zone."""
LATEST = 10**11
"""The year 5138: what lies beyond counts milliseconds or less, or means "never"."""
_UNITS = ((10**14, "milliseconds", 10**3), (10**17, "microseconds", 10**6), (10**20, "nanoseconds", 10**9))


def parse_moment(text: str) -> int | datetime:
    """Unix seconds, or an ISO 8601 date and time.

    Raises:
        ArgumentError: the text is neither.
    """
    try:
        return math.floor(float(text)) if "." in text else int(text)
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if re.match(r"^\s*\d{1,2}:\d\d", text):
            raise ArgumentError(f"{short(text)} names no day: write 2026-03-01T08:30") from None
        raise ArgumentError(
            f"{short(text)} is no moment: write unix seconds, or a date and time as 2026-03-01T08:30"
        ) from None


def read_moment(moment: Any, said: str) -> tuple[int, bool]:
    """Seconds of a moment, and whether they count local time, the moment naming no offset.

    Args:
        moment: seconds as a whole number or a float, a date, a datetime, `np.datetime64` or
            `pandas.Timestamp`.
        said: what an error begins with.

    Raises:
        ArgumentError: it is none of these, or lies before the year 1 or beyond 5138.
    """
    if type(moment) is int and EARLIEST <= moment < LATEST:
        return moment, False
    if isinstance(moment, np.datetime64):
        moment = moment.astype("datetime64[us]").item()
        if isinstance(moment, int):
            moment = datetime.max  # a year that no datetime has
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    naive = False
    # A missing time of pandas is a datetime whose parts are not numbers.
    if isinstance(moment, datetime) and moment == moment:
        naive = moment.tzinfo is None
        seconds = math.floor((moment.replace(tzinfo=UTC) if naive else moment).timestamp())
    elif isinstance(moment, _NUMBERS) and not isinstance(moment, bool) and math.isfinite(moment):
        seconds = math.floor(moment)
    else:
        raise ArgumentError(f"{said}: give unix seconds, ISO text or a datetime")
    if EARLIEST <= seconds < LATEST:
        return seconds, naive
    if not isinstance(moment, datetime):
        for limit, unit, per_second in _UNITS:
            if LATEST <= seconds < limit:
                raise ArgumentError(f"{said}: looks like {unit}: give seconds, {seconds // per_second}")
    raise ArgumentError(
        f"{said}: lies outside the years 1 to 5138: give unix seconds, ISO text or a datetime"
    )


def moment_list(moments: Any) -> list[Any] | None:
    """The moments of a list, an array or a series; None for a single moment."""
    if isinstance(moments, np.ndarray) and moments.ndim and moments.dtype.kind == "M":
        moments = moments.astype("datetime64[us]")
    if isinstance(moments, str | bytes | np.generic | date) or getattr(moments, "ndim", 1) == 0:
        return None
    for name in ("tolist", "to_list", "to_pylist"):
        if hasattr(moments, name):
            return getattr(moments, name)()  # type: ignore[no-any-return]
    if not isinstance(moments, Iterable) or isinstance(moments, Mapping):
        return None
    return list(itertools.islice(moments, MOST_IDS))


class Moments(NamedTuple):
    """When each of R requests is asked."""

    unix: Array | None
    """(R,) int64 unix seconds, or None where they are not known and not needed."""

    local: Array | None
    """(R,) int64 local seconds, likewise."""

    later: int = 0
    """Requests whose moment lay before their last event."""


def ask_at(
    at: Any,
    last: Array | None,
    last_offsets: Array | None,
    zone: str | None,
    *,
    needs_local: bool,
) -> Moments:
    """When each of R requests is asked.

    A moment before a history's last event stands for its hour alone: the request is asked at the next such
    hour after that event. Ages of events are then never negative, whatever reads them.

    Args:
        at: unix seconds, ISO text or a datetime, for all requests or a list of one each; None is the time of
            each user's last event. A datetime or text without an offset is local time of the zone.
        last: (R,) unix seconds of each history's last event, 0 where there is none; None without times.
        last_offsets: (R,) seconds from UTC to local time at those events, or None.
        zone: of the requests: IANA name or offset; None, or a column, keeps the offset of each user's last
            event.
        needs_local: whether the model has a clock.

    Raises:
        ArgumentError: a moment that cannot be read, or one without a zone where the model has a clock.
    """
    named = zone is not None and not zone.startswith(COLUMN)
    if at is None:
        if last is None:
            return Moments(None, None)
        offsets = utc_offsets(last, str(zone)).astype(np.int64) if named else last_offsets
        return Moments(last, None if offsets is None else last + offsets)
    if last is None:
        raise ArgumentError("at= needs events with times: the log carries order alone, or times= is missing")
    listed = moment_list(at)
    moments = [at] if listed is None else listed
    if listed is not None and len(moments) != len(last):
        raise ArgumentError(f"at holds {len(moments)} moments for {len(last)} requests: one, or one each")
    read = [read_asked(moment) for moment in moments]
    seconds = np.broadcast_to(np.array([value for value, _ in read], dtype=np.int64), last.shape)
    naive = np.broadcast_to(np.array([local for _, local in read], dtype=np.bool_), last.shape)
    _refuse_dates(moments, seconds, last)
    if named:
        unix: Array = np.where(naive, local_to_unix(seconds, str(zone)), seconds)
        return _not_before(last, unix, unix + utc_offsets(unix, str(zone)).astype(np.int64))
    if last_offsets is not None:
        unix = np.where(naive, seconds - last_offsets, seconds)
        return _not_before(last, unix, unix + last_offsets)
    if naive.any() or needs_local:
        raise ArgumentError("the users' time zone is not known: pass time_zone=, or prepare the log with one")
    return _not_before(last, np.array(seconds), None)


def read_asked(moment: Any) -> tuple[int, bool]:
    """Seconds of a moment that an answer is wanted at, and whether they count local time.

    Raises:
        ArgumentError: it cannot be read.
    """
    said = f"at={short(moment)}"
    return read_moment(parse_moment(moment) if isinstance(moment, str) else moment, said)


def _refuse_dates(moments: list[Any], seconds: Array, last: Array) -> None:
    """A number before all events that reads as a date is one: 20260301 lies in August 1970."""
    for moment, value in zip(moments, seconds.tolist(), strict=False):
        text = str(moment).strip()
        if not re.match(r"^(19|20)\d{6}$", text) or value >= last.max(initial=EARLIEST):
            continue
        try:
            day = datetime.strptime(text, "%Y%m%d").date()
        except ValueError:
            continue
        raise ArgumentError(
            f"at={text} looks like a date: write {day}T08:30, or unix seconds after the log's"
        )


def _not_before(last: Array, unix: Array, local: Array | None) -> Moments:
    """The same hours, moved by whole days to after the last events."""
    days = np.maximum(-((unix - last) // DAY), 0)
    later = int((days > 0).sum())
    return Moments(unix + DAY * days, None if local is None else local + DAY * days, later)
