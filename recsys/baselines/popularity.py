"""The number of training events of each item, the same for everybody."""

from dataclasses import dataclass

import numpy as np

from recsys.baselines.registry import Baseline, HistoryBaseline, register_baseline
from recsys.evaluation.targets import PreparedLog


@dataclass(frozen=True, kw_only=True, slots=True)
class PopularityConfig:
    """The number of training events, the same for everybody; has no options."""


@register_baseline("popularity", PopularityConfig)
def fit_popularity(store: PreparedLog, config: PopularityConfig) -> Baseline:
    """Counts of the training events."""
    counts = store.item_counts().astype(np.float64)
    return HistoryBaseline(store, lambda items, offsets: np.tile(counts, (len(offsets) - 1, 1)))
