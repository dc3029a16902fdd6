"""Checks of ranking's arguments; each failure is one line that names the argument."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError

TIES = ("pessimistic", "optimistic", "average")


def check_scored(hidden: Tensor, item_weight: Tensor) -> None:
    """Refuse rows and items that cannot be multiplied.

    Raises:
        ArgumentError: a shape, dtype or device does not fit.
    """
    if hidden.dim() != 2 or not hidden.is_floating_point():
        raise ArgumentError(f"hidden is {hidden.dtype} of shape {tuple(hidden.shape)}: give floating (B, d)")
    if item_weight.dim() != 2 or item_weight.shape[1] != hidden.shape[1] or item_weight.shape[0] == 0:
        raise ArgumentError(
            f"item_weight has shape {tuple(item_weight.shape)} and hidden {tuple(hidden.shape)}: "
            "give (V, d) with the d of hidden and V >= 1"
        )
    if item_weight.dtype != hidden.dtype or item_weight.device != hidden.device:
        raise ArgumentError(
            f"item_weight is {item_weight.dtype} on {item_weight.device} and hidden {hidden.dtype} on "
            f"{hidden.device}: give one dtype and device"
        )


def check_ids(name: str, ids: Tensor, count: int | None, item_weight: Tensor) -> None:
    """Refuse ids that are not int64 in [0, V), or not `count` of them.

    Raises:
        ArgumentError: see above; the range is checked on the CPU only.
    """
    if ids.dim() != 1 or ids.dtype != torch.int64 or (count is not None and ids.shape[0] != count):
        expected = "int64 (C,)" if count is None else f"int64 ({count},), one per row of hidden"
        raise ArgumentError(f"{name} is {ids.dtype} of shape {tuple(ids.shape)}: give {expected}")
    if ids.device != item_weight.device:
        raise ArgumentError(
            f"{name} is on {ids.device} and item_weight on {item_weight.device}: give one device"
        )
    if ids.numel() and ids.device.type == "cpu":
        values = ids.numpy()  # numpy finds extremes several times faster than torch
        lowest, highest = int(values.min()), int(values.max())
        if lowest < 0 or highest >= item_weight.shape[0]:
            raise ArgumentError(
                f"{name} holds {lowest if lowest < 0 else highest} and item_weight has "
                f"{item_weight.shape[0]} rows: give ids in [0, V)"
            )


def check_exclude(exclude: tuple[Tensor, Tensor] | None, hidden: Tensor, item_weight: Tensor) -> None:
    """Refuse exclusion lists that are not one run of ids per row.

    Raises:
        ArgumentError: see above.
    """
    if exclude is None:
        return
    ids, offsets = exclude
    check_ids("exclude ids", ids, None, item_weight)
    if tuple(offsets.shape) != (hidden.shape[0] + 1,) or offsets.dtype != torch.int64:
        raise ArgumentError(
            f"exclude offsets is {offsets.dtype} of shape {tuple(offsets.shape)} and hidden has shape "
            f"{tuple(hidden.shape)}: give int64 (B + 1,)"
        )
    if offsets.device.type == "cpu" and (
        int(offsets[0]) != 0 or int(offsets[-1]) != ids.shape[0] or bool((offsets[1:] < offsets[:-1]).any())
    ):
        raise ArgumentError(
            f"exclude offsets runs from {int(offsets[0])} to {int(offsets[-1])} and there are {ids.shape[0]} "
            "ids: give the running sum of the rows' counts, from 0"
        )
