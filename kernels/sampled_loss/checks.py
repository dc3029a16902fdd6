"""Checks of the sampled losses' arguments; each failure is one line that names the argument."""

import math

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.embedding import HashedTable, item_count
from recsys.kernels.sampled_loss.form import Arguments, Form

REDUCTIONS = ("mean", "sum", "none")


def check_options(name: str, form: Form, arguments: Arguments) -> None:
    """Refuse options out of range.

    Raises:
        ArgumentError: see above.
    """
    temperature, reduction, smoothing = arguments.temperature, arguments.reduction, form.smoothing
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise ArgumentError(f"{name}: temperature is {temperature}, want a finite number above 0")
    if reduction not in REDUCTIONS:
        raise ArgumentError(f"{name}: reduction is {reduction!r}, want one of {', '.join(REDUCTIONS)}")
    if not 0.0 <= smoothing <= 1.0:
        raise ArgumentError(f"{name}: label_smoothing is {smoothing}, want a number in [0, 1]")


def check_tensors(name: str, arguments: Arguments) -> None:
    """Refuse tensors whose shapes, dtypes or devices do not go together, and, on the CPU, ids out of range.

    Raises:
        ArgumentError: see above.
    """
    hidden, items = arguments.hidden, arguments.items
    targets, negatives = arguments.targets, arguments.negatives
    log_q, target_log_q, weight = arguments.log_q, arguments.target_log_q, arguments.weight
    like = f"hidden has shape {tuple(hidden.shape)}"
    if hidden.dim() != 2 or not hidden.is_floating_point():
        raise ArgumentError(f"{name}: hidden is {hidden.dtype}, {like}, want floating (N, d)")
    rows, width = hidden.shape
    table = items.weight if isinstance(items, HashedTable) else items
    if table.dim() != 2 or table.shape[1] != width or table.dtype != hidden.dtype:
        raise ArgumentError(
            f"{name}: items is {table.dtype} of shape {tuple(table.shape)}, hidden is {hidden.dtype} and "
            f"{like}, want (V, d) with the d and dtype of hidden"
        )
    if targets.shape != (rows,) or targets.dtype != torch.int64:
        raise ArgumentError(
            f"{name}: targets is {targets.dtype} of shape {tuple(targets.shape)} and {like}, want int64 (N,)"
        )
    shape = negatives.shape
    fits = len(shape) == 1 or (len(shape) == 2 and shape[0] == rows)
    if not fits or shape[-1] == 0 or negatives.dtype != torch.int64:
        raise ArgumentError(
            f"{name}: negatives is {negatives.dtype} of shape {tuple(shape)} and {like}, "
            "want int64 (K,) or (N, K) with K >= 1"
        )
    if log_q is not None and log_q.shape not in (shape, shape[-1:]):
        raise ArgumentError(
            f"{name}: log_q has shape {tuple(log_q.shape)} and negatives {tuple(shape)}, want that or (K,)"
        )
    for label, x in (("target_log_q", target_log_q), ("weight", weight)):
        if x is not None and (x.shape != (rows,) or not x.is_floating_point()):
            raise ArgumentError(
                f"{name}: {label} is {x.dtype} of shape {tuple(x.shape)} and {like}, want floating (N,)"
            )
    for label, x in (
        ("items", table),
        ("targets", targets),
        ("negatives", negatives),
        ("log_q", log_q),
        ("target_log_q", target_log_q),
        ("weight", weight),
    ):
        if x is not None and x.device != hidden.device:
            raise ArgumentError(f"{name}: {label} is on {x.device} and hidden on {hidden.device}, move one")
        if x is not None and x is not table and x.requires_grad:
            raise ArgumentError(f"{name}: {label} wants a gradient and gets none: pass {label}.detach()")
    if hidden.device.type == "cpu":
        _check_ids(name, "targets", targets, item_count(items))
        _check_ids(name, "negatives", negatives, item_count(items))


def _check_ids(name: str, label: str, ids: Tensor, items: int) -> None:
    if ids.numel():
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= items:
            wrong = lowest if lowest < 0 else highest
            raise ArgumentError(f"{name}: {label} holds {wrong} and there are {items} items, want [0, V)")
