"""Negative items for sampled losses: a pure function of (seed, row, draw), whatever the device or order.

Read `reference` first, then `tables` (what is drawn from) and `cpu` or `triton_forward`.

Legend: N rows, K negatives, V items.
"""

import math
from types import ModuleType

import torch
from torch import Tensor

from recsys.kernels.sampling import reference
from recsys.kernels.sampling.checks import check_draws, check_targets
from recsys.kernels.sampling.tables import NegativeSampler, popularity_sampler, uniform_sampler
from recsys.kernels.shared.backends import BackendTable
from recsys.kernels.shared.random_words import mix, row_keys

__all__ = [
    "NegativeSampler",
    "draw_in_batch",
    "draw_negatives",
    "draw_shared",
    "log_expected_count",
    "popularity_sampler",
    "uniform_sampler",
]


def _cpu() -> ModuleType:
    from recsys.kernels.sampling import cpu

    return cpu


def _triton() -> ModuleType:
    from recsys.kernels.sampling import triton

    return triton


BACKENDS = BackendTable[ModuleType](
    "sampling", {"reference": lambda: reference, "cpu": _cpu, "triton": _triton}
)


def draw_negatives(
    sampler: NegativeSampler,
    targets: Tensor,
    count: int,
    seed: int,
    *,
    first_row: int = 0,
    backend: str | None = None,
) -> Tensor:
    """Draw negatives for each row, with replacement, never the row's own target.

    Args:
        sampler: from `uniform_sampler` or `popularity_sampler`, on the device of targets.
        targets: (N,) int64 in [0, V).
        count: K, at least 1.
        seed: any integer; its low 64 bits count.
        first_row: what row 0 counts as: a batch cut in two draws what it draws whole.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        (N, K) int64; the same for every backend. Their probabilities: `log_expected_count`.

    Raises:
        ArgumentError: an argument does not fit, or the catalog has one item and so no negative.

    Cost: O(N K). On a GPU nothing waits for the device.
    """
    check_draws("draw_negatives", sampler, count, targets.device)
    check_targets(sampler, targets)
    draw = _implementation(backend, targets.device).draw_negatives
    drawn: Tensor = draw(sampler, targets, count, seed, first_row)
    return drawn


def draw_shared(
    sampler: NegativeSampler,
    count: int,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    backend: str | None = None,
) -> Tensor:
    """Draw negatives that all rows share, with replacement; a row's own target may be among them.

    Losses exclude such hits row by row, which keeps the expected counts of the others as they are.

    Args:
        sampler: on `device`.
        count: K, at least 1.
        seed: any integer; its low 64 bits count.
        device: where to draw.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        (K,) int64; the same for every backend.
    """
    device = torch.empty(0, device=device).device  # "cuda" is the one in use, by its number
    check_draws("draw_shared", sampler, count, device)
    drawn: Tensor = _implementation(backend, device).draw_shared(sampler, count, seed, device)
    return drawn


def draw_in_batch(targets: Tensor, count: int, seed: int) -> Tensor:
    """Take the targets of `count` rows of the batch, without replacement, as negatives for all its rows.

    Args:
        targets: (N,) int64.
        count: K; all targets where it is N or more.
        seed: any integer; its low 64 bits count.

    Returns:
        (min(K, N),) int64, in the order of the rows. An item's expected count is K times its share of the
        targets over the whole stream, not in this batch.
    """
    if count >= len(targets):
        return targets
    rows = torch.arange(len(targets), dtype=torch.int64, device=targets.device)
    lots = mix(row_keys(seed, rows))
    return targets[lots.argsort(stable=True)[:count].sort().values]


def log_expected_count(
    sampler: NegativeSampler, ids: Tensor, count: int, targets: Tensor | None = None
) -> Tensor:
    """Compute the logarithm of how often each item is expected among `count` draws: logQ.

    Args:
        sampler: that drew `ids`, on their device.
        ids: (N, K) of `draw_negatives`, or (K,) shared by all rows.
        count: draws per row, or in all if shared.
        targets: (N,) for draws of `draw_negatives`, whose probabilities depend on what they avoid; None for
            shared ones.

    Returns:
        float32, shape of ids: log(count q(i)), or log(count q(i | target)), exact to float32.
    """
    return (reference.probability(sampler, ids, targets).log() + math.log(count)).to(torch.float32)


def _implementation(backend: str | None, device: torch.device) -> ModuleType:
    # Ids have no floating type for the choice to go by.
    return BACKENDS.load(BACKENDS.choose(backend, torch.empty(0, device=device)))
