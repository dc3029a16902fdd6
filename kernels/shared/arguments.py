"""Checks of the arguments that the jagged operations share; each failure is one line."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError

__all__ = ["check_offsets", "check_offsets_values", "check_shape"]


def check_shape(
    operation: str, name: str, tensor: Tensor | None, axes: str, shape: tuple[int, ...], like: str
) -> None:
    """Refuse a tensor whose shape or dtype does not fit; None passes.

    Args:
        operation: name of the operation, for the message.
        name: name of the argument, for the message.
        tensor: the argument.
        axes: the meaning of the wanted shape, such as "(N, d_inner)".
        shape: the wanted shape.
        like: what the wanted shape comes from, such as "u (7, 4)".

    Raises:
        ArgumentError: the shape differs, or the dtype is not a floating one.
    """
    if tensor is None:
        return
    if tensor.shape != shape:
        raise ArgumentError(
            f"{operation}: {name} has shape {tuple(tensor.shape)}, want {axes} = {shape} to go with {like}"
        )
    if not tensor.is_floating_point():
        raise ArgumentError(f"{operation}: {name} has dtype {tensor.dtype}, want a floating one: cast it")


def check_offsets(operation: str, offsets: Tensor | None, device: torch.device) -> Tensor:
    """Refuse offsets of the wrong kind; the values are checked where they can be read for nothing.

    Raises:
        ArgumentError: offsets are missing, not integers, not 1-D, empty or on another device.
    """
    if offsets is None:
        raise ArgumentError(f"{operation}: offsets is missing, give the (B + 1,) int32 sequence boundaries")
    if offsets.dtype not in (torch.int32, torch.int64):
        raise ArgumentError(f"{operation}: offsets has dtype {offsets.dtype}, want int32")
    if offsets.dim() != 1 or offsets.shape[0] == 0:
        raise ArgumentError(f"{operation}: offsets has shape {tuple(offsets.shape)}, want (B + 1,)")
    if offsets.device != device:
        raise ArgumentError(f"{operation}: offsets is on {offsets.device}, want {device} like the events")
    return offsets


def check_offsets_values(operation: str, offsets: Tensor, events: int) -> None:
    """Refuse offsets (on the CPU) that do not run from 0 to the number of events without going back.

    Raises:
        ArgumentError: the first, the last or some step of `offsets` is wrong.
    """
    values = offsets.numpy()
    if values[0] != 0 or values[-1] != events:
        raise ArgumentError(
            f"{operation}: offsets runs from {values[0]} to {values[-1]}, want 0 to {events} (events)"
        )
    if (values[1:] < values[:-1]).any():
        where = int((values[1:] < values[:-1]).argmax())
        raise ArgumentError(
            f"{operation}: offsets falls from {values[where]} to {values[where + 1]} at index {where + 1}, "
            "want non-decreasing"
        )
