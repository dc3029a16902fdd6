"""The arguments of one selective scan, checked at the door: what every backend takes.

Legend: N events, B sequences, d_inner channels, d_state states per channel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.kernels.scan.schedule import ScanSchedule

__all__ = ["ScanCall"]


@dataclass(frozen=True, slots=True, eq=False)
class ScanCall:
    """Arguments of `selective_scan`; shapes, types and meaning as there."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    offsets: Tensor
    delta_softplus: bool
    initial_state: Tensor | None
    return_state: bool
    schedule: ScanSchedule | None

    @property
    def trained(self) -> bool:
        """Whether gradients will be asked for."""
        inputs = (
            self.u, self.delta, self.A, self.B, self.C, self.D, self.z, self.delta_bias, self.initial_state,
        )  # fmt: skip
        return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)

    def widened(self) -> "ScanCall":
        """Return the call in float32, or float64 where `u` is."""
        dtype = torch.float64 if self.u.dtype == torch.float64 else torch.float32
        return ScanCall(
            self.u.to(dtype),
            self.delta.to(dtype),
            self.A.to(dtype),
            self.B.to(dtype),
            self.C.to(dtype),
            None if self.D is None else self.D.to(dtype),
            None if self.z is None else self.z.to(dtype),
            None if self.delta_bias is None else self.delta_bias.to(dtype),
            self.offsets,
            self.delta_softplus,
            None if self.initial_state is None else self.initial_state.to(dtype),
            self.return_state,
            self.schedule,
        )
