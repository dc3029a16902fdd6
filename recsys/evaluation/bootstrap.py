"""Percentile bootstrap over users: confidence intervals and a paired test between two models.

Efron and Tibshirani 1993, chapters 13 and 16. Users are resampled, not rows: a user's rows stand or fall
together.
"""

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError

Floats = NDArray[np.float64]

# Resamples drawn at once are so many that counts of distinct rows stay near 64 MB.
_COUNTS_AT_ONCE = 8_000_000


class PairedDifference(NamedTuple):
    """Outcome of a paired bootstrap test of mean(a) - mean(b)."""

    difference: float
    """mean(a) - mean(b) over the same users."""

    low: float
    """Lower end of the percentile interval of the difference."""

    high: float
    """Upper end."""

    p_value: float
    """Two-sided: how often a centered resample differs from 0 at least as much; never 0."""


def resampled_means(values: Floats, generator: np.random.Generator, resamples: int = 1000) -> Floats:
    """Draw the means of bootstrap resamples of the rows.

    Equal rows are drawn together: how often each distinct row is taken is multinomial, which is the same
    law as drawing users one by one, and one target per user gives few distinct rows whatever the number of
    users.

    Args:
        values: (U, M) float64, one row per user.
        generator: source of the draws.
        resamples: number of resamples B.

    Returns:
        (B, M) float64.
    """
    if values.ndim != 2 or len(values) == 0:
        raise ArgumentError(f"values has shape {values.shape}: give (users, metrics) with at least one user")
    if resamples < 1:
        raise ArgumentError(f"resamples={resamples} must be at least 1")
    distinct, counts = np.unique(values, axis=0, return_counts=True)
    users = len(values)
    chunk = max(1, _COUNTS_AT_ONCE // len(distinct))
    means = np.empty((resamples, values.shape[1]))
    for first in range(0, resamples, chunk):
        rows = min(chunk, resamples - first)
        drawn = generator.multinomial(users, counts / users, size=rows)
        means[first : first + rows] = drawn @ distinct / users
    return means


def confidence_intervals(
    per_user: dict[str, Floats],
    generator: np.random.Generator,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the mean of each metric.

    Each metric is resampled by a stream of its own, so that its interval does not depend on which others are
    asked for.

    Args:
        per_user: dict from metric name to (U,) float64.
        generator: source of the streams; one number is drawn.
        resamples: number of resamples.
        level: coverage aimed at, in (0, 1).

    Returns:
        A dict from metric name to (low, high).
    """
    if not 0 < level < 1:
        raise ArgumentError(f"level={level} must lie between 0 and 1, for example 0.95")
    if not per_user:
        return {}
    tail, key = (1 - level) / 2, int(generator.integers(2**62))
    found = {}
    for name, values in per_user.items():
        means = resampled_means(np.asarray(values)[:, None], stream_of(name, key), resamples)
        low, high = np.quantile(means, [tail, 1 - tail])
        found[name] = float(low), float(high)
    return found


def stream_of(name: str, key: int) -> np.random.Generator:
    """The source of draws that belongs to a name, the same whatever else is drawn."""
    return np.random.default_rng([zlib.crc32(name.encode()), key])


def paired_difference(
    a: Floats,
    b: Floats,
    generator: np.random.Generator,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> PairedDifference:
    """Test whether two models differ in a metric on the same users.

    The p-value is (1 + #{|d* - d| >= |d|}) / (1 + resamples) with d the observed mean difference and d* its
    resamples: the shift method for a null of no difference.

    Args:
        a: (U,) float64 metric of each user under the first model.
        b: (U,) float64 the same users, in the same order, under the second.
        generator: source of the draws.
        resamples: number of resamples.
        level: coverage of the interval.

    Raises:
        ArgumentError: the vectors do not have the same length or are empty.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ArgumentError(
            f"a has shape {a.shape} and b {b.shape}: give the same users in both, at least one"
        )
    if not 0 < level < 1:
        raise ArgumentError(f"level={level} must lie between 0 and 1, for example 0.95")
    difference = np.asarray(a - b, dtype=np.float64)
    observed = float(difference.mean())
    means = resampled_means(difference[:, None], generator, resamples)[:, 0]
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    # The slack keeps a difference that every user shares exactly from being lost to rounding.
    extreme = np.abs(means - observed) >= abs(observed) - 1e-12
    p_value = (1 + int(np.count_nonzero(extreme))) / (1 + resamples)
    return PairedDifference(observed, float(low), float(high), p_value)
