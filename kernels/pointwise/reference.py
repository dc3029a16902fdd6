"""Dropout with residual and gate, activations and rotary positions in plain PyTorch: the definition."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["activate", "add_dropped", "dropout", "rotate_parts"]


def dropout(x: Tensor, factor: Tensor | None) -> Tensor:
    """Multiply x by `factor`, 0 where an element is dropped and 1 / (1 - p) elsewhere; None is all ones."""
    return x if factor is None else x * factor


def add_dropped(x: Tensor, y: Tensor, gate: Tensor | None, factor: Tensor | None) -> Tensor:
    """Compute x + sigmoid(gate) * dropout(y), or x + dropout(y)."""
    y = dropout(y, factor)
    return x + y if gate is None else torch.addcmul(x, torch.sigmoid(gate), y)


def activate(x: Tensor, kind: str, factor: Tensor | None) -> Tensor:
    """Compute dropout(gelu(x)), or dropout(value * silu(gate)) of rows that hold value, then gate."""
    if kind == "gelu":
        return dropout(F.gelu(x), factor)
    value, gate = x.chunk(2, dim=-1)
    return dropout(F.silu(gate) * value, factor)


def rotate_parts(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    """Take (N, P, H, E) apart into P tensors (N, H, E), the first `turned` of them rotated."""
    parts = list(x.unbind(1))
    cos, sin = cos[:, None], sin[:, None]
    for i in range(turned):
        a, b = parts[i].chunk(2, dim=-1)
        parts[i] = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)
    return parts
