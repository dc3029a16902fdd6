"""The compiled loops of sampled losses: losses and, in the same pass, score gradients.

`rows_worker` takes rows with negatives of their own, `block_worker` a block of scores against shared ones.

Legend: N rows, K negatives, R rows per item (1, or hash functions), d width.
"""

import numpy as np

from recsys.kernels.sampled_loss.cpu_score_gradients import Loss, row_score_gradients
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    compiled,
    fma,
    load,
    next_task,
    splat,
    store,
    sum_lanes,
)
from recsys.kernels.shared.vector.activation import load_first, store_first

__all__ = ["BLOCK_N", "block_worker", "rows_worker"]

BLOCK_N = 8
"""Rows per task."""

_ZERO = np.float32(0.0)


@compiled
def rows_worker(
    slot: Number,
    queue: Array,
    loss_of: Loss,
    hidden: Array,
    table: Array,
    width: Number,
    rows: Array,
    per_item: Number,
    count: Number,
    log_q_stride: Number,
    losses: Array,
    coefficients: Array,
    d_hidden: Array,
) -> None:
    """Compute the losses of rows whose negatives are their own and, if asked for, their gradients.

    `rows` holds for each of N rows the table rows of its target and then of its negatives, (N, 1 + K, R).
    `coefficients` (N, 1 + K) gets the gradients of the summed loss in the scores before the temperature, and
    `d_hidden` (N, d) its gradient; both empty if not needed.
    """
    whole = width - width % LANES
    rest = width - whole
    padded = (count + LANES - 1) // LANES * LANES
    scores = np.empty(padded, dtype=np.float32)
    lanes = np.empty(LANES, dtype=np.float32)
    sums = np.empty(whole + LANES, dtype=np.float32)
    columns = count + 1
    keep = len(coefficients) > 0
    while True:
        first = next_task(queue) * BLOCK_N
        if first >= len(loss_of.targets):
            return
        for row in range(first, min(first + BLOCK_N, len(loss_of.targets))):
            here = row * width
            positive = _ZERO
            for column in range(columns):
                total = splat(_ZERO)
                for part in range(per_item):
                    there = rows[(row * columns + column) * per_item + part] * width
                    for d in range(0, whole, LANES):
                        total = fma(load(hidden, here + d), load(table, there + d), total)
                    if rest > 0:
                        total = fma(
                            load_first(hidden, here + whole, rest),
                            load_first(table, there + whole, rest),
                            total,
                        )
                score = sum_lanes(total) * loss_of.rate
                if column == 0:
                    positive = score
                else:
                    scores[column - 1] = score
            losses[row], d_positive = row_score_gradients(
                loss_of, row, scores, 0, count, padded, positive, row * count, row * log_q_stride, lanes
            )
            if not keep:
                continue
            for d in range(0, whole + LANES, LANES):
                store(sums, d, splat(_ZERO))
            for column in range(columns):
                factor = d_positive if column == 0 else scores[column - 1]
                coefficients[row * columns + column] = factor
                many = splat(factor)
                for part in range(per_item):
                    there = rows[(row * columns + column) * per_item + part] * width
                    for d in range(0, whole, LANES):
                        store(sums, d, fma(many, load(table, there + d), load(sums, d)))
                    if rest > 0:
                        value = load_first(table, there + whole, rest)
                        store(sums, whole, fma(many, value, load(sums, whole)))
            for d in range(0, whole, LANES):
                store(d_hidden, here + d, load(sums, d))
            if rest > 0:
                store_first(d_hidden, here + whole, rest, load(sums, whole))


@compiled
def block_worker(
    slot: Number,
    queue: Array,
    loss_of: Loss,
    first_row: Number,
    positives: Array,
    scores: Array,
    padded: Number,
    losses: Array,
    d_positives: Array,
) -> None:
    """Turn a block of scores against shared negatives into score gradients; row 0 is row `first_row`.

    Scores and positives come in divided by the temperature, gradients go out with respect to them undivided.
    """
    lanes = np.empty(LANES, dtype=np.float32)
    count = len(loss_of.negatives)
    while True:
        first = next_task(queue) * BLOCK_N
        if first >= len(positives):
            return
        for place in range(first, min(first + BLOCK_N, len(positives))):
            row = first_row + place
            losses[row], d_positives[place] = row_score_gradients(
                loss_of, row, scores, place * padded, count, padded, positives[place], 0, 0, lanes
            )
