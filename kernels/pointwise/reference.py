"""Dropout with residual and gate, activations and rotary positions in plain PyTorch: the definition."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.kernels.pointwise.mask import draw_seed, keep_mask

__all__ = ["activate", "add_dropped", "dropout", "rotate_parts"]


def dropout(x: Tensor, dropout_p: float, generator: torch.Generator | None) -> Tensor:
    """Zero elements at random and scale the others by 1 / (1 - p)."""
    factor = _factor(x, dropout_p, generator)
    return x if factor is None else x * factor


def add_dropped(
    x: Tensor, y: Tensor, gate: Tensor | None, dropout_p: float, generator: torch.Generator | None
) -> Tensor:
    """Compute x + sigmoid(gate) * dropout(y), or x + dropout(y)."""
    y = dropout(y, dropout_p, generator)
    return x + y if gate is None else torch.addcmul(x, torch.sigmoid(gate), y)


def activate(x: Tensor, kind: str, dropout_p: float, generator: torch.Generator | None) -> Tensor:
    """Compute dropout(gelu(x)), or dropout(value * silu(gate)) of rows that hold value, then gate."""
    if kind == "gelu":
        return dropout(F.gelu(x), dropout_p, generator)
    value, gate = x.chunk(2, dim=-1)
    return dropout(F.silu(gate) * value, dropout_p, generator)


def rotate_parts(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    """Take (N, P, H, E) apart into P tensors (N, H, E), the first `turned` of them rotated."""
    parts = list(x.unbind(1))
    cos, sin = cos[:, None], sin[:, None]
    for i in range(turned):
        a, b = parts[i].chunk(2, dim=-1)
        parts[i] = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)
    return parts


def _factor(like: Tensor, dropout_p: float, generator: torch.Generator | None) -> Tensor | None:
    """0 where an element is dropped and 1 / (1 - p) elsewhere; None drops nothing."""
    if generator is None or dropout_p == 0.0:
        return None
    seed = draw_seed(generator, like.device).to(like.device, non_blocking=True)
    keep = keep_mask(seed, like.shape[0], like.shape[1], dropout_p, device=like.device)
    return keep.to(like.dtype) * (1 / (1 - dropout_p))
