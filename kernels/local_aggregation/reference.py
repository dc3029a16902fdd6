"""Local aggregation and the ranks under it, row by row in double precision: the definition."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["local_ranks", "local_scores"]

Ints = NDArray[np.int64]
Numbers = NDArray[np.floating[Any]]

NEAR = 1e-6
"""Least distance, so that a state equal to the query outweighs the others without dividing by zero."""


def local_scores(
    queries: Numbers, states: Numbers, owners: Ints, ids: Ints, near: Numbers
) -> tuple[NDArray[np.float64], Ints]:
    """Score the items of each query's nearest states: an item's vector is their mean, weighted by 1/distance.

    Args:
        queries: (b, d).
        states: (M, d).
        owners: (M,) int64, the item of each state.
        ids: (b, m) int64 nearest states, each once, best first; -1 for none.
        near: (b, m) minus their squared distances.

    Returns:
        (b, m) float64 minus squared distances of the query to the items' vectors, and (b, m) int64 items,
        ascending, each once; -inf and -1 at the end.
    """
    scores, items = np.full(ids.shape, -np.inf), np.full(ids.shape, -1, dtype=np.int64)
    for row in range(len(ids)):
        found = ids[row] >= 0
        own = states[ids[row, found]].astype(np.float64)
        weights = 1 / np.maximum(np.sqrt(-near[row, found].astype(np.float64)), NEAR)
        distinct, places = np.unique(owners[ids[row, found]], return_inverse=True)
        sums = np.zeros((len(distinct), own.shape[1]))
        np.add.at(sums, places, weights[:, None] * own)
        vectors = sums / np.bincount(places, weights=weights, minlength=len(distinct))[:, None]
        away = vectors - queries[row].astype(np.float64)
        scores[row, : len(distinct)] = -np.einsum("md,md->m", away, away)
        items[row, : len(distinct)] = distinct
    return scores, items


def local_ranks(
    scores: Numbers,
    items: Ints,
    behind: NDArray[np.float64],
    log: NDArray[np.integer],
    starts: Ints,
    ends: Ints,
    targets: Ints,
    offsets: Ints,
) -> tuple[Ints, Ints]:
    """Rank targets where the items with a local vector come before all others.

    Args:
        scores: (b, m) of the items with a local vector.
        items: (b, m) int64, each once, -1 for none.
        behind: (b, V) scores of all items, by which those without a local vector are ordered.
        log: (N,) item of each event.
        starts: (R,) int64 first event of each row's history.
        ends: (R,) int64 event past its end.
        targets: (R,) int64.
        offsets: (b + 1,) int64, the rows of each query.

    Returns:
        (R,) int64 ranks among all items, and among all but those of the history (the target stays); of equal
        items the target comes last.
    """
    kept, removed = np.zeros(len(targets), dtype=np.int64), np.zeros(len(targets), dtype=np.int64)
    for query in range(len(items)):
        order = _places_in_order(scores[query], items[query], behind[query])
        for row in range(offsets[query], offsets[query + 1]):
            target = targets[row]
            seen = np.unique(log[starts[row] : ends[row]])
            others = seen[seen != target]
            kept[row] = order[target]
            removed[row] = kept[row] - np.count_nonzero(order[others] <= order[target])
    return kept, removed


def _places_in_order(scores: Numbers, items: Ints, behind: NDArray[np.float64]) -> Ints:
    """(V,) 1-based rank of every item, equal ones all at the last of their places."""
    found = items[items >= 0]
    tier = np.zeros(len(behind), dtype=np.int64)
    tier[found] = 1
    values = behind.copy()
    values[found] = scores[items >= 0]
    order = np.lexsort((-values, -tier))
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (values[order][1:] != values[order][:-1]) | (tier[order][1:] != tier[order][:-1])
    last = np.append(np.flatnonzero(fresh)[1:], len(order))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.repeat(last, np.diff(np.append(np.flatnonzero(fresh), len(order))))
    return ranks
