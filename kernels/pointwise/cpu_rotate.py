"""Rotary positions for queries and keys in the pass that takes a projection's output apart into heads."""

from typing import Any

import numpy as np
from torch import Tensor

from recsys.kernels.pointwise.cpu_launch import over_rows
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
from recsys.kernels.shared.vector.activation import read, write

__all__ = ["rotate", "rotate_backward"]

STEPS = 1
"""Elementary steps of `threads_for` per element."""


@cpu_operator("recsys::rotate_cpu")
def rotate(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    """Take (N, P, H, E) apart into P tensors (N, H, E), rotating the first `turned`; cos, sin (N, E / 2)."""
    parts = _parts(x)
    _turn(x.contiguous(), parts, cos, sin, turned, False)
    return parts


@rotate.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    return _parts(x)


@cpu_operator("recsys::rotate_cpu_backward")
def rotate_backward(grads: list[Tensor], cos: Tensor, sin: Tensor, turned: int) -> Tensor:
    """Put gradients (N, H, E) of the parts together again, turned back."""
    events, heads, width = grads[0].shape
    dx = grads[0].new_empty(events, len(grads), heads, width)
    _turn(dx, grads, cos, sin, turned, True)
    return dx


@rotate_backward.register_fake
def _(grads: list[Tensor], cos: Tensor, sin: Tensor, turned: int) -> Tensor:
    events, heads, width = grads[0].shape
    return grads[0].new_empty(events, len(grads), heads, width)


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    _, cos, sin, ctx.turned = inputs
    ctx.save_for_backward(cos, sin)


def _differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    return rotate_backward(grads, *ctx.saved_tensors, ctx.turned), None, None, None


rotate.register_autograd(_differentiate, setup_context=_save)


def _parts(x: Tensor) -> list[Tensor]:
    events, count, heads, width = x.shape
    return [x.new_empty(events, heads, width) for _ in range(count)]


def _turn(x: Tensor, parts: list[Tensor], cos: Tensor, sin: Tensor, turned: int, back: bool) -> None:
    """Move between the whole, contiguous, and its parts; `back` is from the parts, by the opposite angles."""
    events, count, heads, width = x.shape
    row = heads * width
    angles = width // 2, flat(cos), flat(sin), np.float32(-1.0 if back else 1.0)
    for i, part in enumerate(parts):
        if i >= turned:
            (x[:, i] if back else part).copy_(part if back else x[:, i])
            continue
        whole, part_rows = (flat(x), i * row, count * row), (flat(part), 0, row)
        ends = (*part_rows, *whole) if back else (*whole, *part_rows)
        over_rows(rotate_worker, events, row, STEPS, *angles, *ends)


@compiled
def rotate_worker(
    slot: Number,
    queue: Array,
    rows: Number,
    task_rows: Number,
    width: Number,
    half: Number,
    cos: Array,
    sin: Array,
    sign: Number,
    source: Array,
    source_at: Number,
    source_row: Number,
    target: Array,
    target_at: Number,
    target_row: Number,
) -> None:
    """Rotate heads of tasks of rows, (a, b) -> (a cos - b sin, a sin + b cos), sines times `sign`.

    Row i begins at source[source_at + i source_row] and target[target_at + i target_row].
    """
    signs = splat(sign)
    while True:
        start = next_task(queue) * task_rows
        if start >= rows:
            return
        for row in range(start, min(start + task_rows, rows)):
            for first in range(0, half, LANES):
                left = half - first
                c = read(cos, row * half + first, left)
                s = multiply(signs, read(sin, row * half + first, left))
                for head in range(first, width, 2 * half):
                    at = source_at + row * source_row + head
                    a, b = read(source, at, left), read(source, at + half, left)
                    to = target_at + row * target_row + head
                    write(target, to, left, subtract(multiply(a, c), multiply(b, s)))
                    write(target, to + half, left, fma(a, s, multiply(b, c)))
