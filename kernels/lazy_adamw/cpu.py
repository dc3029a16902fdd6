"""AdamW on some rows of a table on the CPU: one pass over the rows, a vector at a time."""

import math

import numpy as np
from torch import Tensor

from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    divide,
    fma,
    load,
    multiply,
    next_task,
    splat,
    square_root,
    store,
    subtract,
)

__all__ = ["update_rows"]

BLOCK_U = 256
"""Rows per task."""

STEPS = 2
"""Elementary steps of `threads_for` per element: rows come from memory, not from a cache."""


def update_rows(
    weight: Tensor,
    mean: Tensor,
    square: Tensor,
    ids: Tensor,
    gradient: Tensor,
    *,
    step_size: float,
    beta1: float,
    beta2: float,
    root: float,
    epsilon: float,
    keep: float,
) -> None:
    """Update rows `ids` of float32 contiguous tensors in place; arguments as in `reference.update_rows`."""
    tasks = -(-len(ids) // BLOCK_U)
    launch(
        update_worker,
        threads_for(tasks, STEPS * gradient.numel()),
        ids.contiguous().numpy(),
        weight.shape[1],
        flat(weight),
        flat(mean),
        flat(square),
        flat(gradient),
        *(np.float32(x) for x in (step_size, 1 - beta1, beta2, 1 - beta2, root, epsilon, keep)),
    )


@compiled
def update_worker(
    slot: Number,
    queue: Array,
    ids: Array,
    width: Number,
    weight: Array,
    mean: Array,
    square: Array,
    gradient: Array,
    step_size: Number,
    fresh1: Number,
    beta2: Number,
    fresh2: Number,
    root: Number,
    epsilon: Number,
    keep: Number,
) -> None:
    """Update tasks of `BLOCK_U` rows."""
    whole = width - width % LANES
    down, first, second = splat(-step_size), splat(fresh1), splat(fresh2)
    decay2, rooted, small, kept = splat(beta2), splat(root), splat(epsilon), splat(keep)
    while True:
        start = next_task(queue) * BLOCK_U
        if start >= len(ids):
            return
        for row in range(start, min(start + BLOCK_U, len(ids))):
            to, source = ids[row] * width, row * width
            for d in range(0, whole, LANES):
                g, m = load(gradient, source + d), load(mean, to + d)
                m = fma(first, subtract(g, m), m)
                v = fma(multiply(second, g), g, multiply(decay2, load(square, to + d)))
                store(mean, to + d, m)
                store(square, to + d, v)
                change = divide(m, add(multiply(square_root(v), rooted), small))
                store(weight, to + d, fma(down, change, multiply(kept, load(weight, to + d))))
            for d in range(whole, width):
                g1, m1 = gradient[source + d], mean[to + d]
                m1 += fresh1 * (g1 - m1)
                v1 = beta2 * square[to + d] + fresh2 * g1 * g1
                mean[to + d], square[to + d] = m1, v1
                change1 = m1 / (np.float32(math.sqrt(v1)) * root + epsilon)
                weight[to + d] = keep * weight[to + d] - step_size * change1
