"""What a negative sampler draws from: every item alike, or by an alias table of powers of popularity.

Source of the table: Walker 1977 ("An efficient method for generating discrete random variables"), built in
O(V) as in Vose 1991.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.shared.random_words import LARGEST

__all__ = ["NegativeSampler", "popularity_sampler", "uniform_sampler"]

ONE = 1 << 32
"""Thresholds are counted in 2^-32."""


@dataclass(frozen=True, slots=True, eq=False)
class NegativeSampler:
    """A distribution over V items, as tables that a draw needs two look-ups in.

    Attributes:
        n_items: V.
        threshold: (V,) int64 in [0, 2^32]: a draw that falls on slot i is item i where its next 32 bits are
            below, else the alias. Empty for the uniform distribution.
        alias: (V,) int64, or empty likewise.
        probability: (V,) float64, exactly what the integer tables give; empty likewise.
    """

    n_items: int
    threshold: Tensor
    alias: Tensor
    probability: Tensor

    @property
    def is_uniform(self) -> bool:
        """Whether every item is as likely as any other."""
        return self.threshold.numel() == 0

    def to(self, device: torch.device | str) -> "NegativeSampler":
        """The sampler with its tables on `device`."""
        tables = (self.threshold, self.alias, self.probability)
        return NegativeSampler(self.n_items, *(x.to(device) for x in tables))


def uniform_sampler(n_items: int) -> NegativeSampler:
    """Make a sampler that draws every item alike.

    Raises:
        ArgumentError: n_items is not between 1 and 2^31 - 1.
    """
    _check_items(n_items)
    none = torch.empty(0, dtype=torch.int64)
    return NegativeSampler(n_items, none, none, torch.empty(0, dtype=torch.float64))


def popularity_sampler(counts: NDArray[np.integer] | Tensor, power: float = 1.0) -> NegativeSampler:
    """Make a sampler that draws item i with probability proportional to max(count_i, 1)^power.

    An item without events counts as if it had one: never drawn, it would never be pushed down.

    Args:
        counts: (V,) integers, not negative.
        power: finite; 0 is uniform, 1 is popularity, 0.75 is word2vec's.

    Raises:
        ArgumentError: counts or power are not as above.
    """
    array = counts.cpu().numpy() if isinstance(counts, Tensor) else np.asarray(counts)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ArgumentError(
            f"popularity_sampler: counts is {array.dtype} of shape {array.shape}, want int (V,)"
        )
    _check_items(len(array))
    if int(array.min()) < 0 or not np.isfinite(power):
        raise ArgumentError(
            f"popularity_sampler: the lowest count is {int(array.min())} and power is {power}, "
            "want counts of 0 or more and a finite power"
        )
    # By logarithms, so that no power of a large count overflows.
    logarithms = power * np.log(np.maximum(array, 1).astype(np.float64))
    mass = np.exp(logarithms - logarithms.max())
    return _from_mass(mass)


def _from_mass(mass: NDArray[np.float64]) -> NegativeSampler:
    from recsys.kernels.sampling.cpu_alias_table import fill_alias_table

    n = len(mass)
    threshold, alias = np.empty(n, np.int64), np.empty(n, np.int64)
    fill_alias_table(mass * (n / mass.sum()), np.empty(n, np.int64), threshold, alias)
    parts = threshold.astype(np.float64)
    np.add.at(parts, alias, (ONE - threshold).astype(np.float64))
    tables = (threshold, alias, parts / (float(n) * ONE))
    return NegativeSampler(n, *(torch.from_numpy(x) for x in tables))


def _check_items(n_items: int) -> None:
    if not 1 <= n_items <= LARGEST:
        raise ArgumentError(f"negative sampler: {n_items} items, want 1 to {LARGEST}")
