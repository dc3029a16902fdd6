"""The compiled operations for CPUs, float32: arguments as in `reference`."""

import torch
from torch import Tensor

from recsys.kernels.pointwise import cpu_activate, cpu_dropout, cpu_rotate, reference
from recsys.kernels.pointwise.mask import draw_seed

__all__ = ["activate", "add_dropped", "dropout", "rotate_parts"]


def dropout(x: Tensor, dropout_p: float, generator: torch.Generator | None) -> Tensor:
    """Drop of x."""
    dropped: Tensor = cpu_dropout.drop(None, x, None, *_dropping(dropout_p, generator))
    return dropped


def add_dropped(
    x: Tensor, y: Tensor, gate: Tensor | None, dropout_p: float, generator: torch.Generator | None
) -> Tensor:
    """Add what is left of y, gated, to x."""
    total: Tensor = cpu_dropout.drop(x, y, gate, *_dropping(dropout_p, generator))
    return total


def activate(x: Tensor, kind: str, dropout_p: float, generator: torch.Generator | None) -> Tensor:
    """Activate rows and drop of the result."""
    activated: Tensor = cpu_activate.activate(x, kind == "swiglu", *_dropping(dropout_p, generator))
    return activated


def rotate_parts(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    """Take a projection's output apart into heads, rotating the first parts."""
    if x.shape[1] == 0:
        return reference.rotate_parts(x, cos, sin, turned)
    parts: list[Tensor] = cpu_rotate.rotate(x, cos, sin, turned)
    return parts


def _dropping(dropout_p: float, generator: torch.Generator | None) -> tuple[float, int]:
    """The probability and the mask's seed, both 0 where nothing is dropped."""
    if generator is None or dropout_p == 0.0:
        return 0.0, 0
    return dropout_p, int(draw_seed(generator, torch.device("cpu")))
