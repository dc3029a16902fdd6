"""A row's sampled loss and its gradients in the row's scores, in place, a vector of negatives at a time.

Legend: K negatives; `padded` is K rounded up to whole vectors.
"""

import math
from typing import Any

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

__all__ = ["row_score_gradients"]

_LOWEST = np.float32(-np.inf)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@compiled
def row_score_gradients(
    kind: Number,
    smoothing: Number,
    beta: Number,
    scores: Array,
    at: Number,
    count: Number,
    padded: Number,
    positive: Number,
    target: Number,
    ids: Array,
    ids_at: Number,
    log_q: Array,
    log_q_at: Number,
    target_log_q: Number,
    factor: Number,
    lanes: Array,
) -> Any:
    """Turn scores[at : at + count] into factor * their gradients; return the loss and the target's likewise.

    Elements up to `padded` are scratch. `ids` are the negatives, to find hits by; `log_q` may be empty;
    `lanes` is scratch of one vector.
    """
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
