"""The arguments of one loss over the whole catalog, checked at the door: what every backend takes."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["LossCall"]


@dataclass(frozen=True, slots=True, eq=False)
class LossCall:
    """Arguments of `linear_cross_entropy`; shapes, types and meaning as there."""

    hidden: Tensor
    item_weight: Tensor
    targets: Tensor
    weight: Tensor | None
    label_smoothing: float
    temperature: float
    bias: Tensor | None
    reduction: str
    skip_small: bool
