"""The compiled operations for CPUs, float32: arguments as in `reference`, with p and seed for the factor."""

from torch import Tensor

from recsys.kernels.pointwise import activating, dropping, rotating

__all__ = ["activate", "add_dropped", "dropout", "rotate_parts"]


def dropout(x: Tensor, dropout_p: float, seed: int) -> Tensor:
    """Drop of x."""
    dropped: Tensor = dropping.drop(None, x, None, dropout_p, seed)
    return dropped


def add_dropped(x: Tensor, y: Tensor, gate: Tensor | None, dropout_p: float, seed: int) -> Tensor:
    """Add what is left of y, gated, to x."""
    total: Tensor = dropping.drop(x, y, gate, dropout_p, seed)
    return total


def activate(x: Tensor, kind: str, dropout_p: float, seed: int) -> Tensor:
    """Activate rows and drop of the result."""
    activated: Tensor = activating.activate(x, kind == "swiglu", dropout_p, seed)
    return activated


def rotate_parts(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    """Take a projection's output apart into heads, rotating the first parts."""
    parts: list[Tensor] = rotating.rotate(x, cos, sin, turned)
    return parts
