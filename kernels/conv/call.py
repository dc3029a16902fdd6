"""The arguments of one causal convolution, checked at the door: what every backend takes."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ConvCall"]


@dataclass(frozen=True, slots=True, eq=False)
class ConvCall:
    """Arguments of `causal_conv`; shapes, types and meaning as there."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    offsets: Tensor
    activation: str | None
    initial_state: Tensor | None
    return_state: bool
    positions: Tensor | None

    def widened(self, *, x: bool = True) -> "ConvCall":
        """Return the call in float32, or float64 where `x` is; `x=False` leaves the events as they are."""
        dtype = torch.float64 if self.x.dtype == torch.float64 else torch.float32
        return ConvCall(
            self.x.to(dtype) if x else self.x,
            self.weight.to(dtype),
            None if self.bias is None else self.bias.to(dtype),
            self.offsets,
            self.activation,
            None if self.initial_state is None else self.initial_state.to(dtype),
            self.return_state,
            self.positions,
        )
