"""Figures as if items had been shown alike: targets weighted by inverse propensities, self-normalized.

A log's held-out targets are what people were shown and took, so that popular items are tested most. With a
propensity of n^a, n an item's training events, a metric is sum(w m) / sum(w) over targets, w = n^-a cut at
ten times its mean (Yang et al. 2018, "Unbiased offline recommender evaluation for missing-not-at-random
implicit feedback"; Swaminathan and Joachims 2015 for the normalization). What a power is right for a log is
not known to the log: figures at several say how far an order of models hangs on it.
"""

from dataclasses import dataclass

import numpy as np

from recsys.console.text import table
from recsys.errors import ArgumentError
from recsys.evaluation.bootstrap import resampled_means, stream_of
from recsys.evaluation.metrics import Floats
from recsys.evaluation.protocol import Protocol, get_protocol
from recsys.evaluation.result import EvaluationResult
from recsys.evaluation.targets import PreparedLog, select_targets

__all__ = ["MOST", "UnbiasedFigures", "check_power", "unbiased_figures"]

MOST = 10.0
"""Largest weight of a target, times the mean over targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbiasedFigures:
    """Weighted figures beside the plain ones.

    Attributes:
        power: a.
        metrics: of the headline, by name.
        confidence: 95% percentile interval of each, users resampled; empty if not asked for.
        cold_targets: targets without a training event, which have no propensity and are left out.
        effective_users: (sum w)^2 / sum w^2: of so many users alike the figures would be as sure.
    """

    power: float
    metrics: dict[str, float]
    confidence: dict[str, tuple[float, float]]
    cold_targets: int
    effective_users: float

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "power": self.power,
            "metrics": dict(self.metrics),
            "confidence": {name: list(interval) for name, interval in self.confidence.items()},
            "cold_targets": self.cold_targets,
            "effective_users": self.effective_users,
        }

    def table(self, plain: EvaluationResult) -> str:
        """As text, a line per metric, the plain figure beside."""
        rows = [
            [
                name,
                f"{value:.4f}",
                "{:.4f}-{:.4f}".format(*self.confidence[name]) if name in self.confidence else "",
                f"{plain.metrics[name]:.4f}",
            ]
            for name, value in self.metrics.items()
            if not name.startswith(("recall@", "precision@", "map@"))
        ]
        title = (
            f"weighted by training events^-{self.power:g} (inverse propensities, self-normalized), as sure as"
            f" {self.effective_users:,.0f} users alike"
        )
        names = ("metric", "weighted", "95%", "plain")
        return f"{title}\n{table(names, rows, left=('metric',))}"


_SEVERAL = (
    "unbiased= weighs one target of each user: leave tie_orders out, and choose a protocol that tests the"
    " next event"
)


def check_power(power: float, *, tie_orders: int = 0) -> float:
    """Refuse a power that is none, and orders of ties beside it.

    Raises:
        ArgumentError: it is no number above 0 and at most 4, or there are orders.
    """
    if tie_orders:
        raise ArgumentError(_SEVERAL)
    if isinstance(power, bool) or not isinstance(power, int | float) or not 0 < power <= 4:
        raise ArgumentError(f"unbiased={power!r} must be a number above 0 and at most 4, for example 0.5")
    return float(power)


def unbiased_figures(
    result: EvaluationResult,
    store: PreparedLog,
    power: float,
    *,
    protocol: str | Protocol = "default",
    resamples: int = 1000,
    seed: int = 0,
) -> UnbiasedFigures:
    """Weigh the figures of an evaluation.

    Args:
        result: of this log, with one target for each user.
        store: the prepared log.
        power: a, above 0 and at most 4.
        protocol: by which the targets were chosen.
        resamples: bootstrap resamples; 0 leaves the intervals out.
        seed: of the bootstrap.

    Raises:
        ArgumentError: the power is out of range, users have several targets, or no target trains.
    """
    power = check_power(power)
    if result.rows != result.users or not result.ranks:
        raise ArgumentError(_SEVERAL)
    rules = get_protocol(protocol)
    targets = select_targets(
        store,
        result.split,  # type: ignore[arg-type]
        rules.targets,
        drop_seen_targets=rules.seen_targets == "dropped",
        users=result.user,
    )
    counts = np.asarray(store.item_counts())[targets.target]
    known = counts > 0
    if not known.any():
        raise ArgumentError("unbiased= needs targets with a training event, and this split has none")
    weights = counts[known].astype(np.float64) ** -power
    weights = np.minimum(weights, MOST * float(weights.mean()))
    metrics: dict[str, float] = {}
    confidence: dict[str, tuple[float, float]] = {}
    for name, values in result.per_user.items():
        weighed: Floats = np.stack([weights * values[known], weights], axis=1)
        metrics[name] = float(weighed[:, 0].sum() / weights.sum())
        if resamples:
            sums = resampled_means(weighed, stream_of(name, seed), resamples)
            low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
            confidence[name] = float(low), float(high)
    return UnbiasedFigures(
        power=power,
        metrics=metrics,
        confidence=confidence,
        cold_targets=int(np.count_nonzero(~known)),
        effective_users=float(weights.sum() ** 2 / np.square(weights).sum()),
    )
