"""What every split comes to: a part for each event, and where each user's parts begin.

Marks are absolute positions in the event arrays, with ``offsets[u] <= valid_start[u] <= test_start[u] <=
offsets[u+1]``: training is ``[offsets[u], valid_start[u])``, validation ``[valid_start[u], test_start[u])``,
test ``[test_start[u], offsets[u+1])``.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import RecsysError

Ints = NDArray[np.int64]
Parts = NDArray[np.int8]

TRAIN, VALID, TEST, LEFT_OUT = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SortedLog:
    """What a split may look at: N events of U users, sorted by user, then time.

    Attributes:
        offsets: (U+1,) int64 first position of each user's events.
        timestamps: (N,) int64 unix seconds, or None for a log of order alone.
        stated: (N,) int8 parts that the log itself names, or None; events are then sorted by part before
            time.
        targets: (N,) bool, events that may be tested, the others being context; None for all.
    """

    offsets: Ints
    timestamps: Ints | None = None
    stated: Parts | None = None
    targets: NDArray[np.bool_] | None = None

    @property
    def lengths(self) -> Ints:
        """(U,) int64 events of each user."""
        lengths: Ints = np.diff(self.offsets)
        return lengths

    @property
    def n_targets(self) -> Ints:
        """(U,) int64 events of each user that may be tested."""
        return self.lengths if self.targets is None else _count(self.targets, self.offsets)

    @property
    def from_end(self) -> Ints:
        """(N,) int64 how many events that may be tested follow of the user's."""
        if self.targets is None:
            places: Ints = np.repeat(self.offsets[1:], self.lengths) - np.arange(1, self.offsets[-1] + 1)
            return places
        until = np.cumsum(self.targets)
        through: Ints = np.concatenate(([0], until))[self.offsets[1:]]
        return np.repeat(through, self.lengths) - until


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """What a split decided.

    Attributes:
        parts: (N,) int8 TRAIN, VALID, TEST or LEFT_OUT; within a user they do not fall.
        drop_cold: whether events after training with an item that never trains are dropped.
        facts: what meta.json shall say of it.
        untrained: what to raise if no event of the log trains; None where that may be.
    """

    parts: Parts
    drop_cold: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    untrained: RecsysError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SplitBounds:
    """A split of U users' events.

    Attributes:
        valid_start, test_start: (U,) int64 absolute positions.
        tested: users with a test event after another event.
        tied: those of them whose first test event has the same time as the event before it, so that only
            the order of the file made it the test event; None where the log has no times.
    """

    valid_start: Ints
    test_start: Ints
    tested: int
    tied: int | None

    @property
    def tie_share(self) -> float | None:
        """Share of the tested users that is tied; None where the log has no times."""
        return tie_share(self.tied, self.tested)


def bounds_of(parts: Parts, offsets: Ints, keys: Ints | None) -> SplitBounds:
    """Where each user's parts begin.

    Args:
        parts: (N,) int8 TRAIN, VALID or TEST, not falling within a user.
        offsets: (U+1,) int64.
        keys: (N,) int64 times at the log's own resolution, for the share of ties; None without times.
    """
    starts, ends = offsets[:-1], offsets[1:]
    valid_start = starts + _count(parts == TRAIN, offsets)
    test_start = valid_start + _count(parts == VALID, offsets)
    first = test_start[(test_start < ends) & (test_start > starts)]
    tied = None if keys is None else int(np.count_nonzero(keys[first] == keys[first - 1]))
    return SplitBounds(valid_start, test_start, len(first), tied)


def tie_share(tied: int | None, tested: int) -> float | None:
    """Share of tested users that are tied, 0 of none; None where the log has no times."""
    return None if tied is None else tied / max(tested, 1)


def cold_events(parts: Parts, items: NDArray[np.int32], n_items: int) -> NDArray[np.bool_]:
    """(N,) bool, events with an item that has no training event.

    No recommender trained on the log could name such an item, so they are dropped and counted.
    """
    known = np.zeros(n_items, dtype=bool)
    known[items[parts == TRAIN]] = True
    return ~known[items]


def training_events(bounds: SplitBounds, offsets: Ints) -> NDArray[np.bool_]:
    """(N,) bool, whether each event trains."""
    steps = np.zeros(int(offsets[-1]) + 1, dtype=np.int8)
    # A user without training events opens and closes at one place, so places are counted, not set.
    np.add.at(steps, offsets[:-1], 1)
    np.add.at(steps, bounds.valid_start, -1)
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool)


def describe(bounds: SplitBounds, offsets: Ints) -> dict[str, Any]:
    """Counts of a split's parts, for meta.json."""
    train = bounds.valid_start - offsets[:-1]
    valid = bounds.test_start - bounds.valid_start
    test = offsets[1:] - bounds.test_start
    return {
        "train_events": int(train.sum()),
        "valid_events": int(valid.sum()),
        "test_events": int(test.sum()),
        "valid_users": int(np.count_nonzero(valid)),
        "test_users": int(np.count_nonzero(test)),
    }


def _count(chosen: NDArray[np.bool_], offsets: Ints) -> Ints:
    """(U,) int64, each user's events that are chosen."""
    before = np.zeros(len(chosen) + 1, dtype=np.int64)
    np.cumsum(chosen, out=before[1:])
    counts: Ints = before[offsets[1:]] - before[offsets[:-1]]
    return counts
