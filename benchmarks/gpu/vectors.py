"""Item vectors and queries in clusters, made on the device: a million of them take no time there."""

import torch
from torch import Tensor

from recsys.benchmarks.kernels.padding import draw

__all__ = ["WIDTH", "clusters"]

WIDTH = 64


def clusters(items: int, queries: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """As `recsys.benchmarks.retrieval.measuring.clustered` makes them.

    Returns:
        (items, `WIDTH`) vectors and (queries, `WIDTH`) queries, float32, the same in every run on one kind
        of device.
    """
    float32 = torch.float32
    centres = draw(max(16, int(items**0.5)), WIDTH, seed=0, device=device, dtype=float32)
    generator = torch.Generator(device).manual_seed(1)
    place = torch.randint(len(centres), (items,), generator=generator, device=device)
    asked = torch.randint(len(centres), (queries,), generator=generator, device=device)
    vectors = centres[place] + draw(items, WIDTH, seed=2, device=device, dtype=float32)
    vectors *= draw(items, 1, seed=3, device=device, dtype=float32).mul(0.3).exp()
    return vectors, centres[asked] + draw(queries, WIDTH, seed=4, device=device, dtype=float32)
