"""Ranking metrics from the ranks of the targets: HR, recall, precision, NDCG, MAP and MRR at k, over users.

Ranks are 1-based. For a user with targets t of rank r(t), T targets in all:

- hr@k = 1 if some r(t) <= k, else 0.
- recall@k = #{t: r(t) <= k} / T. With one target it equals hr@k.
- precision@k = #{t: r(t) <= k} / k. With one target it is hr@k / k.
- mrr@k = 1 / min r(t) if min r(t) <= k, else 0.
- map@k = sum over r(t) <= k of #{s: r(s) <= r(t)} / r(t), divided by min(T, k), so that the best list has 1
  (RecBole's; RecTools divides by T). With one target it equals mrr@k.
- serendipity@k = #{t: r(t) <= k and rp(t) > k} / T with rp(t) the rank by popularity: the part of recall@k
  that the list of the k most popular items lacks ("useful and unexpected", Ge et al. 2010).
- ndcg@k = DCG / IDCG, DCG = sum over r(t) <= k of 1 / log2(r(t) + 1) and IDCG = sum over i = 1..min(T, k)
  of 1 / log2(i + 1): the "achievable" ideal, the standard (Järvelin and Kekäläinen 2002, binary gains). With
  one target IDCG is 1. The "constant" ideal always sums over i = 1..k, as RecTools does unless told
  divide_by_achievable=True; for k = 10 and one target it is 4.5436 times lower.

A metric is the mean over the counted users, each with the same weight however many targets it has.
Average ranks (ties shared) may be halves; the same formulas hold.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import ArgumentError

DEFAULT_KS = (1, 5, 10, 20)
METRICS = ("hr", "recall", "ndcg", "mrr", "precision", "map")
"""In the order of tables."""
OF_SEVERAL_TARGETS = ("recall", "precision", "map")
"""Metrics that say what hr and mrr say where every user has one target."""
LARGEST_K = 1_000_000
NdcgIdeal = Literal["achievable", "constant"]
Floats = NDArray[np.float64]
# 1-based: int64, or float64 where ties share a rank.
Ranks = NDArray[np.number[Any]]


def check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Sort the cut-offs and refuse what is not a whole number of 1 to `LARGEST_K`."""
    whole = [int(k) for k in ks if int(k) == k and 1 <= k <= LARGEST_K]
    if not whole or len(whole) != len(ks):
        raise ArgumentError(
            f"ks={list(ks)!r} must be whole numbers from 1 to {LARGEST_K:,}, for example 1,5,10,20"
        )
    return tuple(sorted(set(whole)))


def check_draws(name: str, value: Any, least: int = 0) -> int:
    """A seed, or how often something is drawn, as int.

    Raises:
        ArgumentError: not a whole number, or less than `least`.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ArgumentError(f"{name}={value!r} must be a whole number of at least {least}")
    return int(value)


def per_user_metrics(
    ranks: ArrayLike,
    row_offsets: ArrayLike | None = None,
    ks: Sequence[int] = DEFAULT_KS,
    *,
    ndcg_ideal: NdcgIdeal = "achievable",
) -> dict[str, Floats]:
    """Compute each metric for each user.

    Args:
        ranks: (R,) int or float, 1-based rank of each target.
        row_offsets: (U+1,) int64 grouping the rows by user, no group empty; None means one target per user.
        ks: cut-offs.
        ndcg_ideal: "achievable" (standard) or "constant" (RecTools' default).

    Returns:
        A dict from "hr@1", ..., "map@20" to (U,) float64.

    Raises:
        ArgumentError: a rank below 1 or not finite, groups that do not cover the rows, a bad cut-off.
    """
    if ndcg_ideal not in ("achievable", "constant"):
        raise ArgumentError(f"ndcg_ideal={ndcg_ideal!r} is not known: choose 'achievable' or 'constant'")
    cuts = check_ks(ks)
    rank = np.asarray(ranks, dtype=np.float64)
    if rank.ndim != 1 or not np.all(np.isfinite(rank)) or np.any(rank < 1):
        raise ArgumentError("ranks must be a vector of finite numbers from 1: a rank is missing or below 1")
    offsets = np.arange(len(rank) + 1) if row_offsets is None else np.asarray(row_offsets, dtype=np.int64)
    sizes = np.diff(offsets)
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(rank) or np.any(sizes < 1):
        raise ArgumentError(
            f"row_offsets must rise from 0 to {len(rank)}, the number of ranks, without empty groups"
        )

    best = _reduce(np.minimum, rank, offsets)
    ideal = np.cumsum(1.0 / np.log2(np.arange(max(cuts)) + 2.0))
    discount = np.zeros(len(rank))
    counted = rank <= max(cuts)  # few are: a logarithm costs more than all that is done with it
    discount[counted] = 1.0 / np.log2(rank[counted] + 1.0)
    inverse = 1.0 / best
    found_by = _found_by(rank, offsets)
    metrics: dict[str, Floats] = {}
    targets = 1 if len(sizes) == len(rank) else sizes
    for k in cuts:
        inside = rank <= k
        reach = np.minimum(targets, k) if ndcg_ideal == "achievable" else k
        metrics[f"hr@{k}"] = (best <= k).astype(np.float64)
        hits = _reduce(np.add, inside.astype(np.float64), offsets)
        metrics[f"recall@{k}"] = hits / targets
        metrics[f"precision@{k}"] = hits / k
        metrics[f"ndcg@{k}"] = _reduce(np.add, np.where(inside, discount, 0.0), offsets) / ideal[reach - 1]
        metrics[f"mrr@{k}"] = np.where(best <= k, inverse, 0.0)
        gains = _reduce(np.add, np.where(inside, found_by / rank, 0.0), offsets)
        metrics[f"map@{k}"] = gains / np.minimum(targets, k)
    return {f"{name}@{k}": metrics[f"{name}@{k}"] for name in METRICS for k in cuts}


def serendipity(
    ranks: Ranks, popularity: Ranks, row_offsets: NDArray[np.int64], ks: Sequence[int]
) -> dict[str, float]:
    """Mean over users of serendipity@k for each k; 0.0 where nobody is counted.

    Args:
        ranks: (R,) 1-based rank of each target.
        popularity: (R,) the same by popularity.
        row_offsets: (U+1,) int64 grouping the rows by user, no group empty.
        ks: cut-offs.
    """
    sizes = np.diff(row_offsets)
    found = {}
    for k in check_ks(ks):
        alone = ((ranks <= k) & (popularity > k)).astype(np.float64)
        found[f"serendipity@{k}"] = (
            float((_reduce(np.add, alone, row_offsets) / sizes).mean()) if len(sizes) else 0.0
        )
    return found


def mean_metrics(per_user: dict[str, Floats]) -> dict[str, float]:
    """Average each metric over users; 0.0 where nobody is counted."""
    return {name: float(values.mean()) if len(values) else 0.0 for name, values in per_user.items()}


def _found_by(rank: Floats, offsets: NDArray[np.int64]) -> Floats:
    """(R,) for each target how many of its user's rank as high or higher."""
    if len(offsets) == len(rank) + 1:
        return np.ones(len(rank))
    sizes = np.diff(offsets)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((rank, owner))
    # The last place among equal ranks, within the user.
    ordered = rank[order]
    fresh = np.flatnonzero(np.append((np.diff(ordered) != 0) | (np.diff(owner) != 0), True))
    last = fresh[np.searchsorted(fresh, np.arange(len(rank)))]
    found = np.empty(len(rank))
    found[order] = last - offsets[owner] + 1
    return found


def _reduce(operation: np.ufunc, values: Floats, offsets: NDArray[np.int64]) -> Floats:
    if len(offsets) == len(values) + 1:  # one row per user, or nobody
        return values
    reduced: Floats = operation.reduceat(values, offsets[:-1])
    return reduced
