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
SLICE_GROUPS = {
    "history_length": "history",
    "popularity": "popularity",
    "item": "item",
    "target": "target",
    "hour": "hour",
}
"""How tables call the ways of slicing."""
SLICE_METRICS = (f"hr@{SLICE_K}", f"ndcg@{SLICE_K}")
# First history length of each bin, in events.
LENGTH_EDGES = (1, 5, 10, 20, 50, 100, 200)
HEAD_SHARE = 0.2
TAIL_SHARE = 0.2
POPULARITY_CLASSES = ("head", "middle", "tail", "cold")

Slices = dict[str, dict[str, dict[str, Any]]]
SliceRows = dict[str, tuple[tuple[str, ...], NDArray[np.int8]]]
"""Group to the names of its slices and (R,) int8, the place among them of each row's."""


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


def slice_rows(
    targets: EvaluationTargets, item_counts: NDArray[np.int64], hours: NDArray[np.int64] | None = None
) -> SliceRows:
    """Find the rows of each slice.

    Args:
        targets: the rows.
        item_counts: (V,) int64 training events of each item.
        hours: (R,) int64 local hour of each row's request, 0 to 23; None where the log does not tell.

    Returns:
        "history_length" (1-4 to 200+), "popularity" (head to cold), "item" (warm, cold) where some target has
        no training event, "target" (new, repeated), and "hour" (00 to 23) where hours are known.

    Raises:
        ArgumentError: the hours are not one per row.
    """
    lengths = targets.history_end - targets.history_start
    length_bin = np.searchsorted(LENGTH_EDGES, lengths, side="right") - 1
    by_popularity = popularity_classes(item_counts)[targets.target]
    if hours is not None and hours.shape != lengths.shape:
        raise ArgumentError(f"hours has shape {hours.shape}: give one hour for each of {targets.n_rows} rows")
    found: SliceRows = {
        "history_length": (_length_names(), length_bin.astype(np.int8)),
        "popularity": (POPULARITY_CLASSES, by_popularity),
    }
    cold = by_popularity == POPULARITY_CLASSES.index("cold")
    if cold.any():
        found["item"] = (("warm", "cold"), cold.astype(np.int8))
    found |= {
        "target": (("new", "repeated"), targets.repeated.astype(np.int8)),
    }
    if hours is not None:
        found["hour"] = (tuple(f"{hour:02d}" for hour in range(24)), hours.astype(np.int8))
    return found


def slice_gains(ranks: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """(R,) float64 hr@10 and ndcg@10 of each row by name, from 1-based ranks."""
    rank = np.asarray(ranks, dtype=np.float64)
    hit = rank <= SLICE_K
    gain = np.zeros(len(rank))
    gain[hit] = 1 / np.log2(rank[hit] + 1)
    return dict(zip(SLICE_METRICS, (hit.astype(np.float64), gain), strict=True))


def slice_metrics(ranks: ArrayLike, user: NDArray[np.int64], rows: SliceRows) -> Slices:
    """Compute hr@10 and ndcg@10 for each slice.

    Args:
        ranks: (R,) 1-based rank of each row's target.
        user: (R,) int64 user of each row; a user's rows are neighbours.
        rows: of each slice.

    Returns:
        {"history_length": {"1-4": {"rows", "users", "hr@10", "ndcg@10"}, ...}, ...} as `rows` has them; the
        metrics of an empty slice are None.

    Raises:
        ArgumentError: the ranks are not one per row.
    """
    gains = slice_gains(ranks)
    if any(gain.shape != user.shape for gain in gains.values()):
        shape = np.shape(ranks)
        raise ArgumentError(f"ranks has shape {shape}: give one rank for each of {len(user)} rows")
    found: Slices = {}
    for group, (names, places) in rows.items():
        found[group] = {}
        for place, name in enumerate(names):
            inside = places == place
            found[group][name] = _slice({m: gain[inside] for m, gain in gains.items()}, user[inside])
    return found


def _length_names() -> tuple[str, ...]:
    names = [f"{low}-{high - 1}" for low, high in pairwise(LENGTH_EDGES)]
    return (*names, f"{LENGTH_EDGES[-1]}+")


def _slice(gains: dict[str, NDArray[np.float64]], user: NDArray[np.int64]) -> dict[str, Any]:
    # A user's rows are neighbours, in a slice too.
    users = int(np.count_nonzero(user[1:] != user[:-1])) + 1 if len(user) else 0
    means = {name: float(gain.mean()) if len(gain) else None for name, gain in gains.items()}
    return {"rows": len(user), "users": users, **means}
