"""Checks of the clock's arguments; each failure is one line that names the argument."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.shared.arguments import check_offsets, check_shape

__all__ = ["check_clock"]


def check_clock(
    values: Tensor, times: Tensor, query_times: Tensor, offsets: Tensor, coefficients: Tensor, rate: Tensor
) -> None:
    """Refuse arguments that do not go together.

    Raises:
        ArgumentError: a shape, dtype or device does not fit.
    """
    name = "clock_sums"
    if values.dim() != 2:
        raise ArgumentError(f"{name}: values has shape {tuple(values.shape)}, want (N, d)")
    check_shape(name, "values", values, "(N, d)", tuple(values.shape), "itself")
    for label, x in (("times", times), ("query_times", query_times)):
        if x.shape != values.shape[:1] or x.dtype != torch.int64:
            raise ArgumentError(
                f"{name}: {label} is {x.dtype} of shape {tuple(x.shape)}, want int64 local seconds (N,) with "
                f"N = {values.shape[0]}"
            )
    if coefficients.dim() != 1 or len(coefficients) < 2 or not coefficients.is_floating_point():
        raise ArgumentError(
            f"{name}: coefficients is {coefficients.dtype} of shape {tuple(coefficients.shape)}, want "
            "floating (M + 1,) with M >= 1"
        )
    if rate.dim() != 0 or not rate.is_floating_point():
        raise ArgumentError(
            f"{name}: rate is {rate.dtype} of shape {tuple(rate.shape)}, want a floating scalar tensor"
        )
    check_offsets(name, offsets, values.device)
    for label, x in (
        ("times", times),
        ("query_times", query_times),
        ("coefficients", coefficients),
        ("rate", rate),
    ):
        if x.device != values.device:
            raise ArgumentError(f"{name}: {label} is on {x.device}, want {values.device} like values")
