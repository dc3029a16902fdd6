"""Targets weighted against how often their items were shown, as far as their own counts tell.

An item that is put before everybody is taken often, whoever wants it. Weighted by n^-a, n its training
events, what is taken often counts less (inverse propensity scoring, Schnabel et al. 2016, with the
propensities of Yang et al. 2018, n^a). Weights beyond `MOST` times their mean are cut to it: rare items are
few events, and would carry the loss alone.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.datasets.prepared.store import SequenceStore
from recsys.training.config import TrainingConfig
from recsys.training.objectives import Task

__all__ = ["MOST", "Propensities", "is_weighted"]

MOST = 10.0
"""Largest weight, times the mean over training events."""


class Propensities:
    """Weights of items as targets.

    Args:
        counts: (V,) int64 training events of each item.
        power: a, above 0.

    Attributes:
        weights: (V,) float32, of a mean of 1 over training events but for what was cut; 0 for an item without
            any.
    """

    def __init__(self, counts: NDArray[np.int64], power: float) -> None:
        known = counts > 0
        raw = np.zeros(len(counts))
        raw[known] = counts[known].astype(np.float64) ** -power
        mean = float((raw * counts).sum()) / max(int(counts.sum()), 1)
        self.weights = torch.from_numpy(np.minimum(raw / mean, MOST).astype(np.float32))

    def weigh(self, task: Task) -> Task:
        """A task whose targets count by their items as well."""
        own = self.weights[task.targets]
        return replace(task, weights=own if task.weights is None else own * task.weights)


def is_weighted(store: SequenceStore, config: TrainingConfig) -> bool:
    """Whether targets count differently, or some events are no targets."""
    of_log = store.event_weights is not None or store.event_targets is not None
    return of_log or config.propensity_power > 0
