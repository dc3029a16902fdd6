"""A row's sampled loss and its gradients in the row's scores, in place, a vector of negatives at a time.

Legend: K negatives; `padded` is K rounded up to whole vectors.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from recsys.kernels.sampled_loss.form import BPR, SOFTMAX
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    exp2,
    load,
    maximum,
    multiply,
    splat,
    store,
    subtract,
    sum_lanes,
)
from recsys.kernels.shared.vector.activation import LOG2_E, decline, sigmoid, softplus

__all__ = ["Loss", "row_score_gradients"]

_LOWEST = np.float32(-np.inf)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


class Loss(NamedTuple):
    """Which loss, and what it is of, for all N rows of a call.

    Attributes:
        kind: SOFTMAX, BCE or BPR.
        smoothing: float32, as in `Form`.
        beta: float32, likewise.
        targets: (N,) int64.
        negatives: (N K,) or (K,) int64.
        log_q: (N P,) or (P,) float32, P being K rounded up to whole vectors; or empty.
        target_log_q: (N,) float32, or empty.
        scale: (N,) float32 weights of the rows.
        rate: float32, 1 / temperature.
    """

    kind: Number
    smoothing: Number
    beta: Number
    targets: Array
    negatives: Array
    log_q: Array
    target_log_q: Array
    scale: Array
    rate: Number


@compiled
def row_score_gradients(
    loss_of: Loss,
    row: Number,
    scores: Array,
    at: Number,
    count: Number,
    padded: Number,
    positive: Number,
    ids_at: Number,
    log_q_at: Number,
    lanes: Array,
) -> Any:
    """Turn scores[at : at + count] into factor * their gradients; return the loss and the target's likewise.

    The factor is scale[row] * rate. Elements up to `padded` are scratch. `ids_at` and `log_q_at` are where
    the row's negatives and their log_q begin; `lanes` is scratch of one vector.
    """
    kind, smoothing, beta, targets, ids, log_q, own_log_q, scale_of, rate = loss_of
    target, factor = targets[row], scale_of[row] * rate
    target_log_q = own_log_q[row] if len(own_log_q) > 0 else _ZERO
    hits = 0
    whole = _ZERO
    for j in range(count):
        if ids[ids_at + j] == target:
            scores[at + j] = _LOWEST
            hits += 1
        elif smoothing > _ZERO:
            whole += scores[at + j]
    for j in range(count, padded):
        scores[at + j] = _LOWEST
    scale = splat(factor)
    if kind == SOFTMAX:
        own = positive - target_log_q
        top = splat(own)
        for j in range(0, padded, LANES):
            value = load(scores, at + j)
            if len(log_q) > 0:
                value = subtract(value, load(log_q, log_q_at + j))
                store(scores, at + j, value)
            top = maximum(top, value)
        store(lanes, 0, top)
        most = own
        for lane in range(LANES):
            most = max(most, lanes[lane])
        top = splat(most)
        speed = splat(LOG2_E)
        sums = splat(_ZERO)
        for j in range(0, padded, LANES):
            power = exp2(multiply(subtract(load(scores, at + j), top), speed))
            store(scores, at + j, power)
            sums = add(sums, power)
        mine = np.float32(math.exp(own - most))
        total = mine + sum_lanes(sums)
        loss = np.float32(math.log(total)) + (most - own)
        share = factor / total
        d_positive = share * mine - factor
        left = count - hits
        part = _ZERO
        if smoothing > _ZERO and left > 0:
            part = factor * smoothing / np.float32(left)
            loss += smoothing * (own - whole / np.float32(left))
            d_positive += factor * smoothing
        spread, lost = splat(share), splat(part)
        for j in range(0, padded, LANES):
            store(scores, at + j, subtract(multiply(load(scores, at + j), spread), lost))
        if part != _ZERO:
            for j in range(count):
                if ids[ids_at + j] == target:
                    scores[at + j] = _ZERO
        return loss, d_positive
    sums, d_sums = splat(_ZERO), splat(_ZERO)
    shift = splat(positive if kind == BPR else _ZERO)
    for j in range(0, padded, LANES):
        value = subtract(load(scores, at + j), shift)
        fall = decline(value)
        sums = add(sums, softplus(value, fall))
        d_score = multiply(sigmoid(value, fall), scale)
        d_sums = add(d_sums, d_score)
        store(scores, at + j, d_score)
    if kind == BPR:
        one = _ONE / np.float32(count)
        loss, d_positive = sum_lanes(sums) * one, -sum_lanes(d_sums) * one
    else:
        one = _ONE / np.float32(count + 1)
        value = splat(-positive)
        fall = decline(value)
        store(lanes, 0, softplus(value, fall))
        loss = (beta * lanes[0] + sum_lanes(sums)) * one
        store(lanes, 0, sigmoid(value, fall))
        d_positive = -(beta * factor) * lanes[0] * one
    even = splat(one)
    for j in range(0, padded, LANES):
        store(scores, at + j, multiply(load(scores, at + j), even))
    return loss, d_positive
