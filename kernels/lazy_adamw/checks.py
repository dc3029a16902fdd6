"""Checks of lazy AdamW's arguments; each failure is one line that names the argument."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError

__all__ = ["check_gradient", "check_table"]


def check_table(weight: Tensor, mean: Tensor, square: Tensor) -> None:
    """Refuse a table and moments that are not contiguous and of one shape (R, d).

    Raises:
        ArgumentError: see above.
    """
    for name, x in (("weight", weight), ("mean", mean), ("square", square)):
        if x.shape != weight.shape or x.dim() != 2 or not x.is_contiguous():
            raise ArgumentError(f"update_rows: {name} has shape {tuple(x.shape)}, want contiguous (R, d)")


def check_gradient(ids: Tensor, gradient: Tensor, width: int) -> None:
    """Refuse ids that are not int64 (U,), and a gradient that is not (U, d).

    Raises:
        ArgumentError: see above.
    """
    if ids.dim() != 1 or ids.dtype != torch.int64 or gradient.shape != (len(ids), width):
        raise ArgumentError(
            f"update_rows: ids is {ids.dtype} {tuple(ids.shape)} and gradient {tuple(gradient.shape)}, "
            f"want int64 (U,) and (U, {width})"
        )
