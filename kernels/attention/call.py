"""The arguments of one attention over a jagged batch, checked at the door: what every backend takes."""

from dataclasses import dataclass

from torch import Tensor

from recsys.kernels.attention.bias import AttentionBias
from recsys.kernels.attention.schedule import AttentionSchedule

__all__ = ["AttentionCall"]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionCall:
    """Arguments of `jagged_attention`; shapes, types and meaning as there, but for what is said here."""

    q: Tensor
    k: Tensor
    v: Tensor
    offsets: Tensor
    causal: bool
    scale: float
    """Factor on the scores."""
    dropout_p: float
    seed: Tensor | None
    """int64 scalar from which the dropout mask follows (see `dropout.keep_mask`); None drops nothing."""
    bias: AttentionBias | None
    schedule: AttentionSchedule | None
