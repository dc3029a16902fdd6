"""Checks of the loss's arguments; each failure is one line that names the argument."""

import math

import torch
from torch import Tensor

from recsys.errors import ArgumentError

REDUCTIONS = ("mean", "sum", "none")


def check_options(label_smoothing: float, temperature: float, reduction: str) -> None:
    """Refuse options out of range.

    Raises:
        ArgumentError: see above.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(
            f"linear_cross_entropy: label_smoothing is {label_smoothing}, want a number in [0, 1]"
        )
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise ArgumentError(
            f"linear_cross_entropy: temperature is {temperature}, want a finite number above 0"
        )
    if reduction not in REDUCTIONS:
        raise ArgumentError(
            f"linear_cross_entropy: reduction is {reduction!r}, want one of {', '.join(REDUCTIONS)}"
        )


def check_tensors(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, weight: Tensor | None, bias: Tensor | None
) -> None:
    """Refuse tensors whose shapes, dtypes or devices do not go together.

    Raises:
        ArgumentError: see above.
    """
    like = f"hidden has shape {tuple(hidden.shape)}"
    if hidden.dim() != 2 or not hidden.is_floating_point():
        raise ArgumentError(f"linear_cross_entropy: hidden is {hidden.dtype}, {like}, want floating (N, d)")
    rows, width = hidden.shape
    if item_weight.dim() != 2 or item_weight.shape[1] != width or item_weight.shape[0] == 0:
        raise ArgumentError(
            f"linear_cross_entropy: item_weight has shape {tuple(item_weight.shape)} and {like}, "
            "want (V, d) with the d of hidden and V >= 1"
        )
    if targets.shape != (rows,) or targets.dtype != torch.int64:
        raise ArgumentError(
            f"linear_cross_entropy: targets is {targets.dtype} of shape {tuple(targets.shape)} and {like}, "
            "want int64 (N,)"
        )
    if weight is not None and (weight.shape != (rows,) or not weight.is_floating_point()):
        raise ArgumentError(
            f"linear_cross_entropy: weight is {weight.dtype} of shape {tuple(weight.shape)} and {like}, "
            "want floating (N,)"
        )
    if weight is not None and weight.requires_grad:
        raise ArgumentError(
            "linear_cross_entropy: weight wants a gradient and gets none: pass weight.detach()"
        )
    if bias is not None and bias.shape != item_weight.shape[:1]:
        raise ArgumentError(
            f"linear_cross_entropy: bias has shape {tuple(bias.shape)} and item_weight "
            f"{tuple(item_weight.shape)}, want (V,)"
        )
    for name, x in (("item_weight", item_weight), ("bias", bias)):
        if x is not None and x.dtype != hidden.dtype:
            raise ArgumentError(
                f"linear_cross_entropy: {name} is {x.dtype} and hidden {hidden.dtype}, want one dtype"
            )
    for name, x in (("item_weight", item_weight), ("bias", bias), ("targets", targets), ("weight", weight)):
        if x is not None and x.device != hidden.device:
            raise ArgumentError(
                f"linear_cross_entropy: {name} is on {x.device} and hidden on {hidden.device}, move one"
            )


def check_targets(targets: Tensor, items: int) -> None:
    """Refuse targets (on the CPU) outside [0, items).

    Raises:
        ArgumentError: see above.
    """
    if targets.numel():
        lowest, highest = int(targets.min()), int(targets.max())
        if lowest < 0 or highest >= items:
            wrong = lowest if lowest < 0 else highest
            raise ArgumentError(
                f"linear_cross_entropy: targets holds {wrong} and item_weight has {items} rows, "
                "want ids in [0, V): leave out rows to be ignored"
            )
