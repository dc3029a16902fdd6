"""The moments of a temporal split over shards: order statistics of all events' times, found by counting."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.preparing.shard_events import kept_events
from recsys.datasets.preparing.shard_job import Each, ShardJob
from recsys.datasets.splitting.temporal import Temporal, TemporalCuts, cut_places, refuse_empty_part

__all__ = ["count_times", "shard_cuts", "time_range"]

_BINS = 4096


def time_range(job: ShardJob, shard: int, turn: int) -> tuple[int, int, int]:
    """Events of a shard after the filter's last round, and their first and last time; ends of no events."""
    times = _times(job, shard, turn)
    if not len(times):
        return 0, np.iinfo(np.int64).max, np.iinfo(np.int64).min
    return len(times), int(times.min()), int(times.max())


def count_times(job: ShardJob, shard: int, turn: int, moments: Sequence[int]) -> NDArray[np.int64]:
    """(n,) int64 events of a shard before each of n rising moments."""
    times = _times(job, shard, turn)
    moment = np.asarray(moments, dtype=np.int64)
    # The bin of a time is the first moment after it.
    bins = np.bincount(np.searchsorted(moment, times, side="right"), minlength=len(moment) + 1)
    counts: NDArray[np.int64] = np.cumsum(bins)[: len(moment)]
    return counts


def shard_cuts(job: ShardJob, each: Each, turn: int, config: Temporal) -> TemporalCuts:
    """The cuts of a temporal split of all shards, those of `recsys.datasets.splitting.temporal`.

    Raises:
        DataError: the cuts leave a part without an event.
    """
    ranges = list(each(time_range, [(job, shard, turn) for shard in job.shards]))
    n_events = sum(count for count, _, _ in ranges)
    if config.valid_time is not None and config.test_time is not None:
        cuts = TemporalCuts(int(config.valid_time), int(config.test_time))
    else:
        first, last = min(one[1] for one in ranges), max(one[2] for one in ranges)
        found = (_time_at(job, each, turn, place, first, last) for place in cut_places(n_events, config))
        cuts = TemporalCuts(*found)
    n_train, n_known = _before(job, each, turn, [cuts.valid_time, cuts.test_time])
    refuse_empty_part(cuts, int(n_train), int(n_known - n_train), int(n_events - n_known))
    return cuts


def _time_at(job: ShardJob, each: Each, turn: int, place: int, first: int, last: int) -> int:
    """Time of the event at a place in the order of time; it lies in [first, last]."""
    while first < last:
        step = -(-(last - first + 1) // _BINS)
        moments = list(range(first + step, last + 1, step))
        # As many bins lie whole before the event as have at most `place` events before their end.
        passed = int(np.searchsorted(_before(job, each, turn, moments), place, side="right"))
        last = min(last, first + (passed + 1) * step - 1)
        first += passed * step
    return first


def _before(job: ShardJob, each: Each, turn: int, moments: Sequence[int]) -> NDArray[np.int64]:
    total = np.zeros(len(moments), dtype=np.int64)
    for counts in each(count_times, [(job, shard, turn, moments) for shard in job.shards]):
        total += counts
    return total


def _times(job: ShardJob, shard: int, turn: int) -> NDArray[np.int64]:
    events, keep = kept_events(job, shard, turn)
    times = events.timestamps
    assert times is not None
    return np.asarray(times) if keep is None else np.asarray(times[keep])
