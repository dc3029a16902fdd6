"""EASE: a linear item-to-item model in closed form."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from recsys.baselines.pairs import TrainingPairs
from recsys.baselines.registry import Baseline, HistoryBaseline, register_baseline
from recsys.config import require
from recsys.errors import ArgumentError
from recsys.evaluation.scored import Scores
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import PreparedLog

EASE_MOST_ITEMS = 25_000
"""Catalogs beyond need more than 15 GB for EASE's matrix and its inverse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EaseConfig:
    """EASE (Steck 2019, arXiv:1905.03375): the linear item-to-item model with zero diagonal, closed form."""

    regularization: float = 500.0
    """Added to the diagonal of the co-occurrence matrix; above 0. The paper: 200 to 1000."""

    def __post_init__(self) -> None:
        """Check the range."""
        require(self.regularization > 0, "floor.regularization", self.regularization, "above 0")


@register_baseline("ease", EaseConfig)
def fit_ease(store: PreparedLog, config: EaseConfig) -> Baseline:
    """Item-to-item weights of the training events.

    Raises:
        ArgumentError: a catalog of more than `EASE_MOST_ITEMS` items.
    """
    return HistoryBaseline(store, _ease_scores(store, config))


def _ease_scores(store: PreparedLog, config: EaseConfig) -> Callable[[Ints, Ints], Scores]:
    if store.n_items > EASE_MOST_ITEMS:
        raise ArgumentError(
            f"EASE inverts a matrix of {store.n_items:,} x {store.n_items:,}, "
            f"{3 * 8 * store.n_items**2 / 1e9:.0f} GB in all: it is for catalogs of up to {EASE_MOST_ITEMS:,}"
        )
    gram = np.empty((store.n_items, store.n_items))
    for first, counts in TrainingPairs(store).together():
        gram[first : first + len(counts)] = counts
    gram[np.diag_indices(store.n_items)] += config.regularization
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gram)))
    del gram
    # Steck 2019, equation 8: B = I - P diag(1 / diag P).
    weight = inverse.div_(-torch.diagonal(inverse).clone())
    weight.fill_diagonal_(0.0)

    def scores(history: Ints, bounds: Ints) -> Scores:
        with torch.inference_mode():
            summed = torch.nn.functional.embedding_bag(
                torch.from_numpy(history), weight, torch.from_numpy(bounds[:-1]), mode="sum"
            )
        return summed.numpy()

    return scores
