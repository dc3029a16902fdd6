"""The user's own past events, counted by how recent they are and how near the hour of the request.

Nothing is trained: this says how much of a log is habit, and how much of the habit is the hour.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.baselines.registry import register_baseline
from recsys.config import require
from recsys.datasets.times.local_times import DAY_S, local_times, require_local_times
from recsys.evaluation.scored import Scores
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets, PreparedLog

__all__ = ["NearHour", "NearHourConfig", "event_weights", "tie_breaks"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class NearHourConfig:
    """Weights of past events: half as much per half-life, times a wrapped Gaussian of the time of day."""

    half_life_days: float = 30.0
    """Days after which an event counts half; above 0."""
    sigma_hours: float = 1.5
    """Standard deviation, in hours of the day, of what counts as near; above 0."""
    background: float = 0.05
    """Weight that an event far from the hour keeps, so that habits at other hours break ties; 0 or more."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.half_life_days > 0, "floor.half_life_days", self.half_life_days, "above 0")
        require(self.sigma_hours > 0, "floor.sigma_hours", self.sigma_hours, "above 0")
        require(self.background >= 0, "floor.background", self.background, "0 or more")


def event_weights(past: Ints, now: int, config: NearHourConfig) -> tuple[Floats, Floats]:
    """Weights (n,) of past events at local seconds ``past`` asked at ``now``: by age, and by time of day."""
    age = (now - past).clip(0) / DAY_S
    gap = (now - past) % DAY_S / 3600.0
    recent: Floats = 0.5 ** (age / config.half_life_days)
    distance = np.minimum(gap, 24.0 - gap)
    near: Floats = np.exp(-(distance**2) / (2 * config.sigma_hours**2)) + config.background
    return recent, near


def tie_breaks(store: PreparedLog) -> Floats:
    """(V,) popularity, so small that it decides between items of equal weight alone."""
    counts = np.asarray(store.item_counts(), dtype=np.float64)
    shares: Floats = 1e-6 * (counts / (counts.sum() + 1.0))
    return shares


class NearHour:
    """The counts of one log's users; see `NearHourConfig`."""

    def __init__(self, store: PreparedLog, config: NearHourConfig, ties: Floats | None = None) -> None:
        require_local_times(store)  # type: ignore[arg-type]
        local = local_times(store)  # type: ignore[arg-type]
        assert local is not None
        self._store, self._config, self._local = store, config, local
        self._ties = tie_breaks(store) if ties is None else ties

    def __call__(self, rows: Ints, targets: EvaluationTargets) -> Scores:
        """Scores (b, V) of the rows' users at the time of their requests."""
        scores = np.tile(self._ties, (len(rows), 1))
        for row, target_row in enumerate(rows):
            span = slice(int(targets.history_start[target_row]), int(targets.history_end[target_row]))
            now = int(self._local[targets.request_position[target_row]])
            recent, near = event_weights(self._local[span], now, self._config)
            items = np.asarray(self._store.items[span])
            scores[row] += np.bincount(items, recent * near, minlength=self._store.n_items)
        return scores

    def on(self, store: PreparedLog) -> "NearHour":
        """The same, reading histories in another log of the same catalog."""
        return NearHour(store, self._config, self._ties)


@register_baseline("near-hour", NearHourConfig)
def fit_near_hour(store: PreparedLog, config: NearHourConfig) -> NearHour:
    """Nothing is fitted but the popularity that breaks ties.

    Raises:
        ConfigError: the log has no local hours.
    """
    return NearHour(store, config)
