"""The clock's sums by other means: every pair weighed, in PyTorch, as one would write it without a kernel."""

import torch
from torch import Tensor

from recsys.encoders.clock import DEGREE, SIGMAS
from recsys.kernels.clock import cosine_coefficients, hours_to_degree
from recsys.kernels.clock.circle import DAY


def kernels() -> Tensor:
    """(S, M + 1) float32 coefficients of the kernels that the clock mixes."""
    return torch.stack([cosine_coefficients(hours_to_degree(s), DEGREE + 1).float() for s in SIGMAS])


def gaussian_sums(values: Tensor, times: Tensor, asked: Tensor, mix: Tensor, rate: Tensor) -> Tensor:
    """(B, L, d) sums under a mix of exact Gaussians, float32, for sequences of one length.

    Args:
        values: (B, L, d).
        times: (B, L) int64 local seconds.
        asked: (B, L) int64.
        mix: (S,) shares of the deviations `SIGMAS`.
        rate: () decay per day.
    """
    gap = (asked[:, :, None] - times[:, None, :]).remainder(DAY).float()
    squared = (torch.minimum(gap, DAY - gap) / 3600.0) ** 2
    weights = torch.zeros_like(squared)
    for share, sigma in zip(mix, SIGMAS, strict=True):
        weights = weights + share * torch.exp(squared * (-0.5 / sigma**2))
    age = (torch.maximum(asked, times)[:, :, None] - times[:, None, :]).clamp_min(0).float() / DAY
    sums: Tensor = (weights * torch.exp(-rate * age)).tril() @ values
    return sums
