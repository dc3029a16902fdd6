"""GELU and SwiGLU, each followed by dropout, in one pass forward and one backward."""

from typing import Any

import numpy as np
from torch import Tensor

from recsys.kernels.pointwise.cpu_launch import mask_numbers, over_rows
from recsys.kernels.pointwise.cpu_mask import keep_factor, row_key
from recsys.kernels.pointwise.normal import DENSITY, SLOWNESS, TAIL
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    compiled,
    divide,
    fma,
    maximum,
    multiply,
    next_task,
    splat,
    subtract,
)
from recsys.kernels.shared.vector.activation import (
    LOG2_E,
    decay,
    decline,
    inlined,
    read,
    select_negative,
    sigmoid,
    write,
)

__all__ = ["activate", "activate_backward"]

STEPS = 3
"""Elementary steps of `threads_for` per element."""

_SLOWNESS = np.float32(SLOWNESS)
_T1, _T2, _T3, _T4, _T5, _T6, _T7, _T8 = (np.float32(x) for x in TAIL)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_MINUS_HALF_LOG2_E = np.float32(-0.5) * LOG2_E
_DENSITY = np.float32(DENSITY)


@cpu_operator("recsys::activate_cpu")
def activate(x: Tensor, swiglu: bool, dropout_p: float, seed: int) -> Tensor:
    """Activate float32 rows (N, F) by GELU, or (N, 2 F) to (N, F), and drop of the result."""
    out = _output(x, swiglu)
    worker = swiglu_forward_worker if swiglu else gelu_forward_worker
    over_rows(worker, *out.shape, STEPS, *mask_numbers(dropout_p, seed), flat(x), flat(out))
    return out


@activate.register_fake
def _(x: Tensor, swiglu: bool, dropout_p: float, seed: int) -> Tensor:
    return _output(x, swiglu)


@cpu_operator("recsys::activate_cpu_backward")
def activate_backward(grad: Tensor, x: Tensor, swiglu: bool, dropout_p: float, seed: int) -> Tensor:
    """Return the gradient of x."""
    dx = x.new_empty(x.shape)
    worker = swiglu_backward_worker if swiglu else gelu_backward_worker
    over_rows(worker, *grad.shape, STEPS, *mask_numbers(dropout_p, seed), flat(x), flat(grad), flat(dx))
    return dx


@activate_backward.register_fake
def _(grad: Tensor, x: Tensor, swiglu: bool, dropout_p: float, seed: int) -> Tensor:
    return x.new_empty(x.shape)


def _output(x: Tensor, swiglu: bool) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // 2 if swiglu else x.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.options = inputs
    ctx.save_for_backward(x)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 4
    return activate_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None


activate.register_autograd(_differentiate, setup_context=_save)


@inlined
def bell(x: Any) -> Any:
    """Compute exp(-x^2 / 2)."""
    return decay(multiply(x, x), splat(_MINUS_HALF_LOG2_E))


@inlined
def normal_share(x: Any, height: Any) -> Any:
    """Compute P(X < x) of a standard normal X from x and height = bell(x)."""
    size = maximum(x, subtract(splat(_ZERO), x))
    s = divide(splat(_ONE), fma(splat(_SLOWNESS), size, splat(_ONE)))
    series = fma(splat(_T8), s, splat(_T7))
    series = fma(series, s, splat(_T6))
    series = fma(series, s, splat(_T5))
    series = fma(series, s, splat(_T4))
    series = fma(series, s, splat(_T3))
    series = fma(series, s, splat(_T2))
    series = fma(series, s, splat(_T1))
    tail = multiply(multiply(series, s), height)
    return select_negative(x, tail, subtract(splat(_ONE), tail))


@compiled
def gelu_forward_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    seed: Number,
    threshold: Number,
    factor: Number,
    x: Array,
    out: Array,
) -> None:
    """Write tasks of rows."""
    kept = splat(factor)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            key = row_key(seed, row)
            for column in range(0, width, LANES):
                at, left = row * width + column, width - column
                v = read(x, at, left)
                share = multiply(normal_share(v, bell(v)), keep_factor(key, column, threshold, kept))
                write(out, at, left, multiply(v, share))


@compiled
def gelu_backward_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    seed: Number,
    threshold: Number,
    factor: Number,
    x: Array,
    grad: Array,
    dx: Array,
) -> None:
    """Write the gradients of tasks of rows."""
    kept, density = splat(factor), splat(_DENSITY)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            key = row_key(seed, row)
            for column in range(0, width, LANES):
                at, left = row * width + column, width - column
                v = read(x, at, left)
                height = bell(v)
                derivative = fma(multiply(v, density), height, normal_share(v, height))
                down = multiply(read(grad, at, left), keep_factor(key, column, threshold, kept))
                write(dx, at, left, multiply(down, derivative))


@compiled
def swiglu_forward_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    seed: Number,
    threshold: Number,
    factor: Number,
    x: Array,
    out: Array,
) -> None:
    """Write tasks of rows; a row of x is `width` values, then as many gates."""
    kept = splat(factor)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            key = row_key(seed, row)
            for column in range(0, width, LANES):
                at, left = 2 * row * width + column, width - column
                value, gate = read(x, at, left), read(x, at + width, left)
                open_ = multiply(gate, sigmoid(gate, decline(gate)))
                share = multiply(value, keep_factor(key, column, threshold, kept))
                write(out, row * width + column, left, multiply(open_, share))


@compiled
def swiglu_backward_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    seed: Number,
    threshold: Number,
    factor: Number,
    x: Array,
    grad: Array,
    dx: Array,
) -> None:
    """Write the gradients of tasks of rows."""
    kept, one = splat(factor), splat(_ONE)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            key = row_key(seed, row)
            for column in range(0, width, LANES):
                at, left = 2 * row * width + column, width - column
                value, gate = read(x, at, left), read(x, at + width, left)
                down = multiply(
                    read(grad, row * width + column, left), keep_factor(key, column, threshold, kept)
                )
                share = sigmoid(gate, decline(gate))
                write(dx, at, left, multiply(down, multiply(gate, share)))
                bend = fma(gate, subtract(one, share), one)
                write(dx, at + width, left, multiply(multiply(down, value), multiply(share, bend)))
