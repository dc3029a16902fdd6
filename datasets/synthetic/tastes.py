"""Who resembles whom in a log: users and items side by side in a few dimensions, and clusters of them.

Directions are the singular vectors of users x items, each entry 1/sqrt(items of the user x users of the item)
(Dhillon 2001), but for the first, which tells popularity alone.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["k_means", "singular_vectors"]

_ROUNDS = 4
_SPARE = 8
_AT_ONCE = 2_000_000
"""Numbers that are looked at at once."""


def singular_vectors(
    users: Ints, items: Ints, shape: tuple[int, int], width: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Directions of users and of items, by subspace iteration (Halko et al. 2011).

    Args:
        users: (P,) int64 of distinct pairs, rising; every user is in one.
        items: (P,) int64 of the same pairs; every item is in one.
        shape: U, V.
        width: directions; fewer where users or items are fewer.
        rng: where the iteration starts.

    Returns:
        (U, d) and (V, d) float64, each row of length 1 (or 0).
    """
    weight = 1 / np.sqrt(np.bincount(users)[users] * np.bincount(items)[items])
    width = max(1, min(width, min(shape) - 1))
    by_item = np.argsort(items, kind="stable")
    found = rng.normal(size=(shape[1], min(width + 1 + _SPARE, min(shape))))
    for _ in range(_ROUNDS):
        of_users = np.linalg.qr(_product(users, items, weight, found))[0]
        found = np.linalg.qr(_product(items[by_item], users[by_item], weight[by_item], of_users))[0]
    left, values, right = np.linalg.svd(_product(users, items, weight, found), full_matrices=False)
    kept = slice(1, width + 1) if len(values) > 1 else slice(0, 1)
    return _unit(left[:, kept] * values[kept]), _unit((found @ right.T)[:, kept] * values[kept])


def k_means(points: Floats, k: int, rng: np.random.Generator, *, least: int = 1, rounds: int = 15) -> Ints:
    """Clusters of points, none of fewer than ``least`` unless there is one alone.

    Args:
        points: (n, d) float64.
        k: clusters at most.
        rng: draws where they begin (k-means++, Arthur and Vassilvitskii 2007).
        least: members of the smallest; those of a smaller one go to the nearest of the others.
        rounds: at most.

    Returns:
        (n,) int64 from 0, without gaps.
    """
    centres = points[rng.integers(len(points), size=1)]
    distance = np.full(len(points), np.inf)
    for _ in range(min(k, len(points)) - 1):
        distance = np.minimum(distance, ((points - centres[-1]) ** 2).sum(axis=1))
        if not distance.sum() > 0:
            break
        centres = np.append(centres, points[[rng.choice(len(points), p=distance / distance.sum())]], axis=0)
    own = _nearest(points, centres)
    for _ in range(rounds):
        counts = np.bincount(own, minlength=len(centres))
        order = np.argsort(own, kind="stable")
        filled = np.flatnonzero(counts)
        starts = np.concatenate(([0], np.cumsum(counts)))[filled]
        centres = np.add.reduceat(points[order], starts) / counts[filled, None]
        before, own = own, _nearest(points, centres)
        if np.array_equal(before, own):
            break
    counts = np.bincount(own, minlength=len(centres))
    while len(centres) > 1 and counts.min() < least:
        centres = np.delete(centres, counts.argmin(), axis=0)
        own = _nearest(points, centres)
        counts = np.bincount(own, minlength=len(centres))
    return np.unique(own, return_inverse=True)[1].astype(np.int64)


def _product(rows: Ints, columns: Ints, weight: Floats, dense: Floats) -> Floats:
    """Sparse x dense, the entries sorted by row and every row with one."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    found = np.empty((len(starts), dense.shape[1]))
    ends = np.append(starts[1:], len(rows))
    first, at_once = 0, max(1, _AT_ONCE // dense.shape[1])
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + at_once, side="right")))
        span = slice(starts[first], ends[last - 1])
        terms = dense[columns[span]] * weight[span, None]
        found[first:last] = np.add.reduceat(terms, starts[first:last] - starts[first])
        first = last
    return found


def _nearest(points: Floats, centres: Floats) -> Ints:
    squares = (centres**2).sum(axis=1)
    step = max(1, _AT_ONCE // len(centres))
    parts = [points[at : at + step] for at in range(0, len(points), step)]
    return np.concatenate(
        [(squares - 2 * part @ centres.T).argmin(axis=1).astype(np.int64) for part in parts]
    )


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    found: Floats = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return found
