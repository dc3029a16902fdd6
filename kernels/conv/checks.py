"""Argument checks of the causal convolution; each failure is one line."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.shared.arguments import check_shape

__all__ = ["WIDTHS", "check_events", "check_positions"]

WIDTHS = (2, 3, 4)
"""Numbers of taps that the kernels are built for (those of causal-conv1d)."""


def check_events(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Refuse events, (N, d) or one per user, and parameters that do not fit together.

    Raises:
        ArgumentError: names the argument and the shapes.
    """
    if activation not in ("silu", None):
        raise ArgumentError(f"{name}: activation is {activation!r}, use 'silu' or None")
    if x.dim() != 2:
        raise ArgumentError(f"{name}: x has shape {tuple(x.shape)}, want (N, d)")
    channels = x.shape[1]
    like = f"x {tuple(x.shape)}"
    check_shape(name, "x", x, "(N, d)", (x.shape[0], channels), like)
    if weight.dim() != 2 or weight.shape[1] not in WIDTHS:
        raise ArgumentError(
            f"{name}: weight has shape {tuple(weight.shape)}, want (d, width) = ({channels}, 2 to 4) to go "
            f"with {like}; of a Conv1d give weight[:, 0]"
        )
    check_shape(name, "weight", weight, "(d, width)", (channels, weight.shape[1]), like)
    check_shape(name, "bias", bias, "(d,)", (channels,), like)
    for label, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.device != x.device:
            raise ArgumentError(f"{name}: {label} is on {other.device}, want {x.device} like x")


def check_positions(name: str, positions: Tensor, x: Tensor) -> None:
    """Refuse positions that are not integers of the events.

    Raises:
        ArgumentError: names the shapes and devices.
    """
    if positions.shape != x.shape[:1] or positions.dtype not in (torch.int32, torch.int64):
        raise ArgumentError(
            f"{name}: positions has shape {tuple(positions.shape)} and dtype {positions.dtype}, want (N,) = "
            f"{tuple(x.shape[:1])} int32 or int64 to go with x {tuple(x.shape)}"
        )
    if positions.device != x.device:
        raise ArgumentError(f"{name}: positions is on {positions.device}, want {x.device} like x")
