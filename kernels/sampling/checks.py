"""Checks of the draws' arguments; each failure is one line that names the argument."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.sampling.tables import NegativeSampler

__all__ = ["check_draws", "check_targets"]


def check_draws(name: str, sampler: NegativeSampler, count: int, device: torch.device) -> None:
    """Refuse fewer than one draw, and a sampler on another device.

    Raises:
        ArgumentError: see above.
    """
    if count < 1:
        raise ArgumentError(f"{name}: count is {count}, want at least 1")
    if not sampler.is_uniform and sampler.threshold.device != device:
        raise ArgumentError(
            f"{name}: sampler is on {sampler.threshold.device}, draws are wanted on {device}, use .to()"
        )


def check_targets(sampler: NegativeSampler, targets: Tensor) -> None:
    """Refuse targets that are not int64 (N,), and a catalog without a negative.

    Raises:
        ArgumentError: see above.
    """
    if targets.dim() != 1 or targets.dtype != torch.int64:
        raise ArgumentError(
            f"draw_negatives: targets is {targets.dtype} {tuple(targets.shape)}, want int64 (N,)"
        )
    if sampler.n_items < 2:
        raise ArgumentError("draw_negatives: a catalog of one item has no negative")
