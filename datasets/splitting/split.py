"""Mark where each user's training events end and validation and test events begin.

Marks are absolute positions in the event arrays, with ``offsets[u] <= valid_start[u] <= test_start[u] <=
offsets[u+1]``: training is ``[offsets[u], valid_start[u])``, validation ``[valid_start[u], test_start[u])``,
test ``[test_start[u], offsets[u+1])``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError, DataError

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SplitBounds:
    """A split of U users' events.

    Attributes:
        valid_start, test_start: (U,) int64 absolute positions.
        tie_share: share of the tested users whose test event has the same time as the event before it, so
            that only the order of the file made it the test event; 0 where the cut is a time, None where
            the log has no times.
    """

    valid_start: Ints
    test_start: Ints
    tie_share: float | None


@dataclass(frozen=True, slots=True)
class TemporalCuts:
    """Unix seconds: an event at or after a cut belongs to the later part."""

    valid_time: int
    test_time: int


def leave_one_out(offsets: Ints, keys: Ints | None) -> SplitBounds:
    """Test each user on the last event and validate on the one before it.

    Users with fewer than three events only train, so that every tested user has something to learn from.

    Args:
        offsets: (U+1,) int64.
        keys: (N,) int64 times at the log's own resolution, for the share of ties; None without times.
    """
    starts, ends = offsets[:-1], offsets[1:]
    tested = ends - starts >= 3
    test_start = np.where(tested, ends - 1, ends)
    valid_start = np.where(tested, ends - 2, ends)
    tie_share = None
    if keys is not None:
        last = test_start[tested]
        tie_share = float(np.mean(keys[last] == keys[last - 1])) if len(last) else 0.0
    return SplitBounds(valid_start, test_start, tie_share)


def temporal_cuts(
    timestamps: Ints,
    *,
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    valid_time: int | None = None,
    test_time: int | None = None,
) -> TemporalCuts:
    """Choose two moments that cut all users' events alike.

    Args:
        timestamps: (N,) int64 unix seconds, in any order.
        valid_fraction: share of the events that validation shall hold, met as nearly as ties of time allow.
        test_fraction: share of the events that the test part shall hold.
        valid_time: unix seconds of the first cut; None to choose it by the shares.
        test_time: unix seconds of the second cut; both times or neither.

    Raises:
        ArgumentError: the fractions or times are out of range, or one time is given without the other.
        DataError: the cuts leave a part without an event.
    """
    if (valid_time is None) != (test_time is None):
        raise ArgumentError("valid_time and test_time go together: pass both or neither")
    if valid_time is not None and test_time is not None:
        if valid_time >= test_time:
            raise ArgumentError(
                f"valid_time={valid_time} is not before test_time={test_time}: validation must come first"
            )
        cuts = TemporalCuts(int(valid_time), int(test_time))
    else:
        if not (valid_fraction > 0 and test_fraction > 0 and valid_fraction + test_fraction < 1):
            raise ArgumentError(
                f"valid_fraction={valid_fraction} and test_fraction={test_fraction}: both must be above 0 and"
                " their sum below 1"
            )
        n = len(timestamps)
        places = [int(n * (1 - valid_fraction - test_fraction)), int(n * (1 - test_fraction))]
        ordered = np.partition(timestamps, places)
        cuts = TemporalCuts(int(ordered[places[0]]), int(ordered[places[1]]))
    n_train = int(np.count_nonzero(timestamps < cuts.valid_time))
    n_test = int(np.count_nonzero(timestamps >= cuts.test_time))
    n_valid = len(timestamps) - n_train - n_test
    empty = [
        name
        for name, count in (("training", n_train), ("validation", n_valid), ("test", n_test))
        if not count
    ]
    if empty:
        raise DataError(
            f"the temporal split leaves no {empty[0]} event (cuts at {cuts.valid_time} and {cuts.test_time});"
            " pass other fractions or times"
        )
    return cuts


def cold_events(
    timestamps: Ints, items: NDArray[np.int32], n_items: int, cuts: TemporalCuts
) -> NDArray[np.bool_]:
    """(N,) bool, events at or after the first cut with an item that has no training event.

    No recommender trained on the log could name such an item, so they are dropped and counted.
    """
    training = timestamps < cuts.valid_time
    known = np.zeros(n_items, dtype=bool)
    known[items[training]] = True
    return ~known[items]


def temporal(offsets: Ints, timestamps: Ints, cuts: TemporalCuts) -> SplitBounds:
    """Place a global cut in each user's sequence.

    Args:
        offsets: (U+1,) int64.
        timestamps: (N,) int64 unix seconds, not decreasing within a user.
        cuts: from `temporal_cuts`.
    """
    return SplitBounds(
        offsets[:-1] + _events_before(offsets, timestamps, cuts.valid_time),
        offsets[:-1] + _events_before(offsets, timestamps, cuts.test_time),
        0.0,
    )


def training_events(bounds: SplitBounds, offsets: Ints) -> NDArray[np.bool_]:
    """(N,) bool, whether each event trains."""
    steps = np.zeros(int(offsets[-1]) + 1, dtype=np.int8)
    # A user without training events opens and closes at one place, so places are counted, not set.
    np.add.at(steps, offsets[:-1], 1)
    np.add.at(steps, bounds.valid_start, -1)
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool)


def describe(bounds: SplitBounds, offsets: Ints) -> dict[str, Any]:
    """Counts of a split's parts, for meta.json."""
    train = int((bounds.valid_start - offsets[:-1]).sum())
    valid = bounds.test_start - bounds.valid_start
    test = offsets[1:] - bounds.test_start
    return {
        "train_events": train,
        "valid_events": int(valid.sum()),
        "test_events": int(test.sum()),
        "valid_users": int(np.count_nonzero(valid)),
        "test_users": int(np.count_nonzero(test)),
    }


def _events_before(offsets: Ints, timestamps: Ints, cut: int) -> Ints:
    """(U,) int64, each user's events before a moment."""
    before = np.zeros(len(timestamps) + 1, dtype=np.int64)
    np.cumsum(timestamps < cut, out=before[1:])
    return before[offsets[1:]] - before[offsets[:-1]]
