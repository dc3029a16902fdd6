"""What counting alone reaches: the user's own visits, with and without the hour; nothing is trained.

Says how much of the log is habit, and how much of the habit is the hour, before any encoder.
"""

import numpy as np

from benchmarks.clock.requests import Floats, Ints, Requests
from recsys.datasets.local_times import local_times
from recsys.datasets.store import SequenceStore

SIGMA_HOURS = 1.5
HALF_LIFE_DAYS = 30.0
BACKGROUND = 0.05
"""Weight that an event far from the hour keeps, so that habits at other hours break ties."""
_DAY = 86_400


def count_ranks(store: SequenceStore, requests: Requests) -> dict[str, Ints]:
    """(R,) rank of every wanted item by weighted counts of the user's past; ties go by popularity.

    Returns:
        By name: every past event one; by half-life; by half-life and a wrapped Gaussian of the distance in
        time of day plus a background.
    """
    local = local_times(store)
    assert local is not None
    items = np.asarray(store.items)
    popularity = np.asarray(store.item_counts(), dtype=np.float64)
    popularity = popularity / (popularity.sum() + 1.0)  # below one event of the user's own, any weight aside
    names = ("own counts", "own counts, recent", "own counts, recent, near the hour")
    found: dict[str, list[int]] = {name: [] for name in names}
    for start, position, wanted in zip(requests.start, requests.position, requests.item, strict=True):
        past = items[start:position]
        age = (local[position] - local[start:position]).clip(0) / _DAY
        gap = (local[position] - local[start:position]) % _DAY / 3600.0
        recent: Floats = 0.5 ** (age / HALF_LIFE_DAYS)
        near: Floats = np.exp(-(np.minimum(gap, 24.0 - gap) ** 2) / (2 * SIGMA_HOURS**2)) + BACKGROUND
        for name, weights in zip(found, (np.ones(len(past)), recent, recent * near), strict=True):
            scores = 1e-6 * popularity
            scores = scores + np.bincount(past, weights, minlength=len(popularity))
            others = np.count_nonzero(scores >= scores[wanted]) - 1
            found[name].append(1 + others)
    return {name: np.array(ranks, dtype=np.int64) for name, ranks in found.items()}
