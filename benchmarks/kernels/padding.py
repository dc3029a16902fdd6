"""Packed rows to the padded arrays that our rivals take, and back."""

import torch
from torch import Tensor

from recsys.benchmarks.kernels.shapes import Batch

__all__ = ["draw", "leaf", "pad", "unpad"]


def pad(x: Tensor, batch: Batch) -> Tensor:
    """(N, ...) rows as (B, longest, ...), zeros behind each sequence."""
    padded = x.new_zeros(len(batch.lengths) * batch.longest, *x.shape[1:])
    padded = padded.index_copy(0, batch.places(), x)
    return padded.view(len(batch.lengths), batch.longest, *x.shape[1:])


def unpad(x: Tensor, places: Tensor) -> Tensor:
    """(B, longest, ...) as the (N, ...) rows at `places`."""
    return x.flatten(0, 1)[places]


def leaf(x: Tensor) -> Tensor:
    """A copy that gradients are taken of."""
    return x.detach().clone().requires_grad_()


def draw(*shape: int, seed: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Normal numbers, the same in every run on one kind of device."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device).to(dtype)
