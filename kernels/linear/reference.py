"""Linear layers in plain PyTorch: the definition, and what runs where there are no matrix tiles."""

from torch import Tensor
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X W^T + b of (..., I), (O, I) and (O,) or None."""
    return F.linear(x, weight, bias)
