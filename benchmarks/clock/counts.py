"""What counting alone reaches: the user's own visits, with and without the hour; nothing is trained.

Says how much of the log is habit, and how much of the habit is the hour, before any encoder.
"""

import numpy as np

from recsys.baselines.near_hour import NearHourConfig, event_weights, tie_breaks
from recsys.benchmarks.clock.requests import Ints, Requests
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.times.local_times import local_times


def count_ranks(store: SequenceStore, requests: Requests) -> dict[str, Ints]:
    """(R,) rank of every wanted item by weighted counts of the user's past; ties go by popularity.

    Returns:
        By name: every past event one; by half-life; by half-life and a wrapped Gaussian of the distance in
        time of day plus a background.
    """
    local = local_times(store)
    assert local is not None
    items = np.asarray(store.items)
    ties, config = tie_breaks(store), NearHourConfig()
    names = ("own counts", "own counts, recent", "own counts, recent, near the hour")
    found: dict[str, list[int]] = {name: [] for name in names}
    for start, position, wanted in zip(requests.start, requests.position, requests.item, strict=True):
        past = items[start:position]
        recent, near = event_weights(local[start:position], int(local[position]), config)
        for name, weights in zip(found, (np.ones(len(past)), recent, recent * near), strict=True):
            scores = ties + np.bincount(past, weights, minlength=len(ties))
            others = int(np.count_nonzero(scores >= scores[wanted])) - 1
            found[name].append(1 + others)
    return {name: np.array(ranks, dtype=np.int64) for name, ranks in found.items()}
