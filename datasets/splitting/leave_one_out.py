"""Test each user on the last event and validate on the one before it."""

from dataclasses import dataclass

from recsys.datasets.splitting.last_n import last_events
from recsys.datasets.splitting.parts import Division, SortedLog
from recsys.datasets.splitting.registry import register_split


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneOut:
    """Nothing to choose."""


@register_split("leave-one-out", LeaveOneOut)
def leave_one_out(log: SortedLog, config: LeaveOneOut) -> Division:
    """Users with fewer than three events only train, so that every tested user has something to learn from.

    Items that are tested and never train stay in the catalog.
    """
    return Division(last_events(log, 1, 1))
