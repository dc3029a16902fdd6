"""Where a model is good: metrics by history length, the target's popularity, new or repeated, and by hour.

A slice is a set of rows, each taken as a query of its own with one target: hr@10 = share of rows with rank
<= 10, ndcg@10 = mean of 1 / log2(rank + 1) where rank <= 10, else 0.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import ArgumentError
from recsys.evaluation.targets import EvaluationTargets

SLICE_K = 10
# First history length of each bin, in events.
LENGTH_EDGES = (1, 5, 10, 20, 50, 100, 200)
HEAD_SHARE = 0.2
TAIL_SHARE = 0.2
POPULARITY_CLASSES = ("head", "middle", "tail", "cold")

Slices = dict[str, dict[str, dict[str, Any]]]


def popularity_classes(item_counts: NDArray[np.int64]) -> NDArray[np.int8]:
    """Class each item by its training events; items with equal counts share a class.

    An item is "head" if strictly more popular items hold less than 20% of the training events, "tail" if
    they hold at least 80%, else "middle"; "cold" if it has no training event.

    Args:
        item_counts: (V,) int64.

    Returns:
        (V,) int8, place in POPULARITY_CLASSES.
    """
    counts = np.asarray(item_counts, dtype=np.int64)
    values, inverse, times = np.unique(counts, return_inverse=True, return_counts=True)
    held = values * times
    total = max(int(held.sum()), 1)
    ahead = (held.sum() - np.cumsum(held)) / total
    classes = np.where(ahead < HEAD_SHARE, 0, np.where(ahead >= 1 - TAIL_SHARE, 2, 1))
    classes[values == 0] = 3
    return classes[inverse].astype(np.int8)


def slice_metrics(
    ranks: ArrayLike,
    targets: EvaluationTargets,
    item_counts: NDArray[np.int64],
    hours: NDArray[np.int64] | None = None,
) -> Slices:
    """Compute hr@10 and ndcg@10 for each slice.

    Args:
        ranks: (R,) 1-based rank of each row's target.
        targets: the rows.
        item_counts: (V,) int64 training events of each item.
        hours: (R,) int64 local hour of each row's request, 0 to 23; None where the log does not tell.

    Returns:
        {"history_length": {"1-4": {"rows", "users", "hr@10", "ndcg@10"}, ...}, "popularity": {...},
        "target": {"new": ..., "repeated": ...}}, and "hour": {"00": ..., "23": ...} where hours are
        known; the metrics of an empty slice are None.

    Raises:
        ArgumentError: the ranks or hours are not one per row.
    """
    rank = np.asarray(ranks, dtype=np.float64)
    if rank.shape != (targets.n_rows,):
        raise ArgumentError(f"ranks has shape {rank.shape}: give one rank for each of {targets.n_rows} rows")
    lengths = targets.history_end - targets.history_start
    length_bin = np.searchsorted(LENGTH_EDGES, lengths, side="right") - 1
    by_popularity = popularity_classes(item_counts)[targets.target]
    if hours is not None and hours.shape != rank.shape:
        raise ArgumentError(f"hours has shape {hours.shape}: give one hour for each of {targets.n_rows} rows")
    hit = rank <= SLICE_K
    gain = np.zeros(len(rank))
    gain[hit] = 1 / np.log2(rank[hit] + 1)

    def measure(inside: NDArray[np.bool_]) -> dict[str, Any]:
        return _slice(hit[inside], gain[inside], targets.user[inside])

    found = {
        "history_length": {name: measure(length_bin == place) for place, name in enumerate(_length_names())},
        "popularity": {
            name: measure(by_popularity == place) for place, name in enumerate(POPULARITY_CLASSES)
        },
        "target": {"new": measure(~targets.repeated), "repeated": measure(targets.repeated)},
    }
    if hours is not None:
        found["hour"] = {f"{hour:02d}": measure(hours == hour) for hour in range(24)}
    return found


def _length_names() -> list[str]:
    names = [f"{low}-{high - 1}" for low, high in pairwise(LENGTH_EDGES)]
    return [*names, f"{LENGTH_EDGES[-1]}+"]


def _slice(hit: NDArray[np.bool_], gain: NDArray[np.float64], user: NDArray[np.int64]) -> dict[str, Any]:
    # A user's rows are neighbors, in a slice too.
    users = int(np.count_nonzero(user[1:] != user[:-1])) + 1 if len(user) else 0
    return {
        "rows": len(hit),
        "users": users,
        f"hr@{SLICE_K}": float(hit.mean()) if len(hit) else None,
        f"ndcg@{SLICE_K}": float(gain.mean()) if len(hit) else None,
    }
