"""Dropout in one pass with what follows it: dropout(y), x + dropout(y) or x + sigmoid(gate) * dropout(y)."""

from typing import Any

import numpy as np
from torch import Tensor

from recsys.kernels.pointwise.cpu_launch import mask_numbers, over_rows
from recsys.kernels.pointwise.cpu_mask import keep_factor, row_key
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    compiled,
    fma,
    multiply,
    next_task,
    splat,
    subtract,
)
from recsys.kernels.shared.vector.activation import decline, read, sigmoid, write

__all__ = ["drop", "drop_backward"]

ONE = np.float32(1.0)
STEPS = 2
"""Elementary steps of `threads_for` per element."""


@cpu_operator("recsys::drop_cpu")
def drop(x: Tensor | None, y: Tensor, gate: Tensor | None, dropout_p: float, seed: int) -> Tensor:
    """Compute the sum, without a gate that is None; dropout(y) alone where x is None. float32 (N, D)."""
    out = y.new_empty(y.shape)
    mask = mask_numbers(dropout_p, seed)
    if x is None:
        over_rows(plain_worker, *y.shape, STEPS, *mask, flat(y), flat(out))
    elif gate is None:
        over_rows(added_worker, *y.shape, STEPS, *mask, flat(x), flat(y), flat(out))
    else:
        over_rows(gated_worker, *y.shape, STEPS, *mask, flat(x), flat(y), flat(gate), flat(out))
    return out


@drop.register_fake
def _(x: Tensor | None, y: Tensor, gate: Tensor | None, dropout_p: float, seed: int) -> Tensor:
    return y.new_empty(y.shape)


@cpu_operator("recsys::drop_cpu_backward")
def drop_backward(
    grad: Tensor, y: Tensor | None, gate: Tensor | None, dropout_p: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of y and gate; of no gate an empty one. y is None where there is no gate."""
    dy, dgate = _gradients(grad, gate)
    mask = mask_numbers(dropout_p, seed)
    if gate is None:
        over_rows(plain_worker, *grad.shape, STEPS, *mask, flat(grad), flat(dy))
    else:
        inputs, outputs = (grad, y, gate), (dy, dgate)
        over_rows(gated_backward_worker, *grad.shape, STEPS, *mask, *map(flat, inputs), *map(flat, outputs))
    return dy, dgate


@drop_backward.register_fake
def _(
    grad: Tensor, y: Tensor | None, gate: Tensor | None, dropout_p: float, seed: int
) -> tuple[Tensor, Tensor]:
    return _gradients(grad, gate)


def _gradients(grad: Tensor, gate: Tensor | None) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), grad.new_empty(0 if gate is None else grad.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, gate, *ctx.options = inputs
    ctx.added = x is not None
    ctx.save_for_backward(None if gate is None else y, gate)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    y, gate = ctx.saved_tensors
    dy, dgate = drop_backward(grad, y, gate, *ctx.options)
    return grad if ctx.added else None, dy, None if gate is None else dgate, None, None


drop.register_autograd(_differentiate, setup_context=_save)


@compiled
def plain_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    seed: Number,
    threshold: Number,
    factor: Number,
    y: Array,
    out: Array,
) -> None:
    """Write tasks of rows of the dropped y; of its gradient, the gradient of y."""
    kept = splat(factor)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            key = row_key(seed, row)
            for column in range(0, width, LANES):
                at, left = row * width + column, width - column
                share = keep_factor(key, column, threshold, kept)
                write(out, at, left, multiply(share, read(y, at, left)))


@compiled
def added_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    seed: Number,
    threshold: Number,
    factor: Number,
    x: Array,
    y: Array,
    out: Array,
) -> None:
    """Write tasks of rows of x and the dropped y."""
    kept = splat(factor)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            key = row_key(seed, row)
            for column in range(0, width, LANES):
                at, left = row * width + column, width - column
                share = keep_factor(key, column, threshold, kept)
                write(out, at, left, fma(share, read(y, at, left), read(x, at, left)))


@compiled
def gated_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    seed: Number,
    threshold: Number,
    factor: Number,
    x: Array,
    y: Array,
    gate: Array,
    out: Array,
) -> None:
    """Write tasks of rows of x and the dropped, gated y."""
    kept = splat(factor)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            key = row_key(seed, row)
            for column in range(0, width, LANES):
                at, left = row * width + column, width - column
                share = keep_factor(key, column, threshold, kept)
                g = read(gate, at, left)
                share = multiply(share, sigmoid(g, decline(g)))
                write(out, at, left, fma(share, read(y, at, left), read(x, at, left)))


@compiled
def gated_backward_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    seed: Number,
    threshold: Number,
    factor: Number,
    grad: Array,
    y: Array,
    gate: Array,
    dy: Array,
    dgate: Array,
) -> None:
    """Write the gradients of y and gate for tasks of rows."""
    kept = splat(factor)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            key = row_key(seed, row)
            for column in range(0, width, LANES):
                at, left = row * width + column, width - column
                share = keep_factor(key, column, threshold, kept)
                g = read(gate, at, left)
                d_product, open_ = multiply(share, read(grad, at, left)), sigmoid(g, decline(g))
                passed = multiply(d_product, open_)
                write(dy, at, left, passed)
                bend = multiply(passed, subtract(splat(ONE), open_))
                write(dgate, at, left, multiply(bend, read(y, at, left)))
