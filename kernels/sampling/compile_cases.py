"""The launches that ship, for compiling them without a GPU; see `launching.recording`."""

import torch

from recsys.kernels.sampling.tables import popularity_sampler, uniform_sampler
from recsys.kernels.sampling.triton import draw_negatives, draw_shared

__all__ = ["record_all"]


def record_all() -> None:
    """Draw from both distributions at every tile, with and without targets to avoid."""
    targets = torch.zeros(4, dtype=torch.int64)
    for sampler in (uniform_sampler(8), popularity_sampler(torch.arange(8))):
        draw_shared(sampler, 2048, 0, torch.device("cpu"))
        for count in (1, 16, 64, 256):
            draw_negatives(sampler, targets, count, 0, 0)
