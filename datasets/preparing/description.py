"""Facts about a prepared dataset that a reader of its figures needs, as plain values for meta.json.

Facts of parts of a log add up to those of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.preparing.events import Events
from recsys.datasets.times.local_times import at_midnight

_STEPS_S = (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60))


def describe_events(events: Events, offsets: NDArray[np.int64], n_items: int) -> dict[str, Any]:
    """Counts, density, repeats and ties of sorted events."""
    n_users, n_events = events.user_ids.len(), len(events.users)
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


def add_events(facts: Sequence[dict[str, Any]], n_items: int) -> dict[str, Any]:
    """What `describe_events` says of logs without a common user, taken together."""
    totals: dict[str, Any] = {
        name: None if facts[0][name] is None else sum(one[name] for one in facts) for name in facts[0]
    }
    density = totals["events"] / (totals["users"] * n_items)
    return totals | {"items": n_items, "density": density}


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """How many users have how many events.

    Attributes:
        lengths: (n,) int64 rising.
        users: (n,) int64 with each.
    """

    lengths: NDArray[np.int64]
    users: NDArray[np.int64]

    @classmethod
    def of(cls, offsets: NDArray[np.int64]) -> "Lengths":
        """The lengths between (U+1,) offsets."""
        return cls(*np.unique(np.diff(offsets), return_counts=True))

    @classmethod
    def added(cls, parts: "Sequence[Lengths]") -> "Lengths":
        """Those of several parts, taken together."""
        lengths, where = np.unique(np.concatenate([one.lengths for one in parts]), return_inverse=True)
        users = np.zeros(len(lengths), dtype=np.int64)
        np.add.at(users, where, np.concatenate([one.users for one in parts]))
        return cls(lengths, users)

    def described(self) -> dict[str, float | int]:
        """Events a user: least, median, mean, most."""
        before = np.cumsum(self.users)
        n_users = int(before[-1])
        middle = self.lengths[np.searchsorted(before, ((n_users - 1) // 2, n_users // 2), side="right")]
        return {
            "min": int(self.lengths[0]),
            "median": float(middle.mean()),
            "mean": int(self.lengths @ self.users) / n_users,
            "max": int(self.lengths[-1]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What can be said of the times of events, so that parts add up.

    Attributes:
        events: how many.
        first, last: unix seconds.
        whole: for each step whether all times are whole multiples of it after the first.
        midnights: events at midnight in UTC.
        local_midnights: in local time, or None where it is not known.
    """

    events: int
    first: int
    last: int
    whole: tuple[bool, ...]
    midnights: int
    local_midnights: int | None

    @classmethod
    def of(cls, timestamps: NDArray[np.int64], offsets: NDArray[np.int32] | None = None) -> "Times":
        """Of (N,) times and, where they are known, seconds to add for local time."""
        first = int(timestamps.min())
        since = timestamps - first
        return cls(
            events=len(timestamps),
            first=first,
            last=int(timestamps.max()),
            whole=tuple(not np.any(since % step) for _, step in _STEPS_S),
            midnights=at_midnight(timestamps),
            local_midnights=None if offsets is None else at_midnight(timestamps + offsets),
        )

    @classmethod
    def added(cls, parts: "Sequence[Times]") -> "Times":
        """Those of several parts, taken together."""
        first = min(one.first for one in parts)
        local = [one.local_midnights for one in parts if one.local_midnights is not None]
        return cls(
            events=sum(one.events for one in parts),
            first=first,
            last=max(one.last for one in parts),
            whole=tuple(
                all(one.whole[place] and (one.first - first) % step == 0 for one in parts)
                for place, (_, step) in enumerate(_STEPS_S)
            ),
            midnights=sum(one.midnights for one in parts),
            local_midnights=sum(local) if local else None,
        )

    def described(self, time_zone: str | None) -> dict[str, Any]:
        """First and last event, and the coarsest unit that all times are multiples of, apart from a shift.

        The shift allows for days that begin at a local midnight, or minutes counted from an odd second.
        Hours of the day mean nothing where the granularity is a day or more, or nearly all events are at
        midnight.
        """
        names = (name for (name, _), whole in zip(_STEPS_S, self.whole, strict=True) if whole)
        granularity = next(names, "second")
        if self.first == self.last:
            granularity = "second"  # one moment shows no step
        return {
            "first": self.first,
            "last": self.last,
            "granularity": granularity,
            "midnight_share": max(self.midnights, self.local_midnights or 0) / self.events,
            "time_zone": time_zone,
        }
