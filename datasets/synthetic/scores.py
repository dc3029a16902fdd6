"""Scores of the recommender that knows a synthetic log's rule: expected, and on one draw."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CUTOFFS = (1, 5, 10, 20)


def expected_scores(by_rank: Floats, shares: Floats) -> dict[str, float]:
    """Expected scores of lists whose r-th item is wanted with a known probability.

    Args:
        by_rank: (states, ranks) float64, falling along ranks.
        shares: (states,) float64, how often each state is met.
    """
    mean = shares @ by_rank
    gains = 1 / np.log2(np.arange(2, len(mean) + 2))
    inverse = 1 / np.arange(1, len(mean) + 1)
    scores = {}
    for k in CUTOFFS:
        scores[f"hr@{k}"] = float(mean[:k].sum())
        scores[f"ndcg@{k}"] = float((mean[:k] * gains[:k]).sum())
        scores[f"mrr@{k}"] = float((mean[:k] * inverse[:k]).sum())
    return scores


def scores_of_ranks(ranks: Floats, *, noise_rest: int = 0, first_free: int = 0) -> dict[str, float]:
    """Scores of targets at ranks from 0; an infinite rank stands for any of the places left, by chance."""
    unknown = ~np.isfinite(ranks)
    scores = {}
    for k in CUTOFFS:
        hit = ranks < k
        known = ranks[hit]
        free = np.arange(first_free, min(k, first_free + noise_rest))
        chance = unknown.sum() / noise_rest if noise_rest else 0.0
        n = len(ranks)
        scores[f"hr@{k}"] = float((hit.sum() + chance * len(free)) / n)
        scores[f"ndcg@{k}"] = float(
            ((1 / np.log2(known + 2)).sum() + chance * (1 / np.log2(free + 2)).sum()) / n
        )
        scores[f"mrr@{k}"] = float(((1 / (known + 1)).sum() + chance * (1 / (free + 1)).sum()) / n)
    return scores
