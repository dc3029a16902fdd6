"""Small tensors of a batch on their way to a device: one copy for all, since each costs some microseconds."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["moved_together"]

_ALIGNMENT = 16
"""Bytes that Triton's generated code knows of."""


def moved_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy CPU tensors of any types to a device, without waiting for it.

    Args:
        tensors: on the CPU.
        device: where they go.

    Returns:
        Copies of the same types and shapes, parts of one buffer, each aligned to 16 bytes.
    """
    flat = [x.contiguous().view(-1).view(torch.uint8) for x in tensors]
    places, at = [], 0
    for part in flat:
        places.append(at)
        at += -(-len(part) // _ALIGNMENT) * _ALIGNMENT
    packed = torch.zeros(at, dtype=torch.uint8)
    for place, part in zip(places, flat, strict=True):
        packed[place : place + len(part)] = part
    sent = packed.to(device, non_blocking=True)
    return [
        sent[place : place + len(part)].view(x.dtype).view(x.shape)
        for place, part, x in zip(places, flat, tensors, strict=True)
    ]
