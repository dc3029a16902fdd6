"""The convolution's backward kernel: one pass along the events, last inputs and gradients in registers."""

import numpy as np

from recsys.kernels.conv.cpu_rows import (
    BLOCK_D,
    CHUNK,
    ONE,
    ROWS,
    TAPS,
    ZERO,
    gather,
    load_columns,
    recall,
    remember,
    store_columns,
    weigh,
)
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    fma,
    load,
    multiply,
    next_task,
    splat,
    store,
    subtract,
)
from recsys.kernels.shared.vector.activation import decline, read, sigmoid, write
from recsys.kernels.shared.vector.channel_blocks import (
    fill,
    load_block,
    store_block,
)

__all__ = ["BACKWARD_SCRATCH", "backward_worker"]

BACKWARD_SCRATCH = 6 * ROWS + 2 * BLOCK_D
"""float32 elements of scratch space that one worker needs."""


@compiled
def backward_worker(
    slot: Number,
    queue: Array,
    bounds: Array,
    order: Array,
    offsets: Array,
    channels: Number,
    width: Number,
    x: Array,
    x_row: Number,
    weight: Array,
    bias: Array,
    initial: Array,
    gated: Number,
    scratch: Array,
    dy: Array,
    dy_row: Number,
    dfinal: Array,
    dx: Array,
    dinitial: Array,
    dweight: Array,
    dbias: Array,
) -> None:
    """Draw tasks and differentiate them; arguments as of `forward_worker`.

    With g the gradient before the activation, input i of a sequence (counted from `width - 1` before its
    start) receives the sum over j of weight[:, j] g[i - j]: one more run along the events. dweight (groups,
    d, width) and dbias (groups, d) are per group of sequences: the caller adds them up in order.
    """
    past = width - 1
    blocks = (channels + BLOCK_D - 1) // BLOCK_D
    at = slot * BACKWARD_SCRATCH
    taps, at = scratch[at : at + ROWS], at + ROWS
    before, at = scratch[at : at + ROWS], at + ROWS
    lift, at = scratch[at : at + BLOCK_D], at + BLOCK_D
    pulls, at = scratch[at : at + ROWS], at + ROWS
    tail, at = scratch[at : at + ROWS], at + ROWS
    head, at = scratch[at : at + ROWS], at + ROWS
    sum_weight, at = scratch[at : at + ROWS], at + ROWS
    sum_bias = scratch[at : at + BLOCK_D]
    zero = splat(ZERO)
    while True:
        task = next_task(queue)
        if task >= len(order) * blocks:
            return
        group, channel = order[task // blocks], task % blocks * BLOCK_D
        count = min(BLOCK_D, channels - channel)
        load_columns(weight, channel * width, width, count, taps)
        load_block(bias, channel, count, lift)
        fill(sum_weight, 0, TAPS * (BLOCK_D // LANES), ZERO)
        fill(sum_bias, 0, BLOCK_D // LANES, ZERO)
        for sequence in range(bounds[group], bounds[group + 1]):
            begin: Number = np.int64(offsets[sequence])
            end: Number = np.int64(offsets[sequence + 1])
            state_at = (sequence * channels + channel) * past
            if len(initial):
                load_columns(initial, state_at, past, count, before)
            else:
                fill(before, 0, past * (BLOCK_D // LANES), ZERO)
            if len(dfinal):
                load_columns(dfinal, state_at, past, count, tail)
            else:
                fill(tail, 0, past * (BLOCK_D // LANES), ZERO)
            fill(pulls, 0, past * (BLOCK_D // LANES), ZERO)
            for start in range(begin, end, CHUNK):
                events = min(CHUNK, end - start)
                for first in range(0, count, LANES):
                    here, left = channel + first, count - first
                    w0, w1 = load(taps, past * BLOCK_D + first), recall(width, taps, first, 1)
                    w2, w3 = recall(width, taps, first, 2), recall(width, taps, first, 3)
                    x1, x2 = recall(width, before, first, 1), recall(width, before, first, 2)
                    x3 = recall(width, before, first, 3)
                    v0, v1 = load(taps, first), load(taps, BLOCK_D + first)
                    v2, v3 = load(taps, 2 * BLOCK_D + first), load(taps, 3 * BLOCK_D + first)
                    g1, g2 = recall(width, pulls, first, 1), recall(width, pulls, first, 2)
                    g3 = recall(width, pulls, first, 3)
                    s0, s1, s2, s3, s = zero, zero, zero, zero, zero
                    for t in range(start, start + events):
                        x0 = read(x, t * x_row + here, left)
                        g0 = read(dy, t * dy_row + here, left)
                        if gated:
                            total = weigh(width, w0, w1, w2, w3, x0, x1, x2, x3, load(lift, first))
                            open_ = sigmoid(total, decline(total))
                            bend = fma(total, subtract(splat(ONE), open_), splat(ONE))
                            g0 = multiply(g0, multiply(open_, bend))
                        s = add(s, g0)
                        s0 = fma(g0, x0, s0)
                        s1 = fma(g0, x1, s1)
                        s2 = fma(g0, x2, s2)
                        s3 = fma(g0, x3, s3)
                        grad = weigh(width, v0, v1, v2, v3, g0, g1, g2, g3, zero)
                        if t - begin >= past:
                            write(dx, (t - past) * channels + here, left, grad)
                        else:
                            store(head, (t - begin) * BLOCK_D + first, grad)
                        x3 = x2
                        x2 = x1
                        x1 = x0
                        g3 = g2
                        g2 = g1
                        g1 = g0
                    remember(width, before, first, x1, x2, x3)
                    remember(width, pulls, first, g1, g2, g3)
                    store(sum_bias, first, add(load(sum_bias, first), s))
                    gather(width, sum_weight, first, s0, s1, s2, s3)
            # The last inputs, which later events would have read: the state's gradient instead.
            for first in range(0, count, LANES):
                here, left = channel + first, count - first
                v1, v2 = load(taps, BLOCK_D + first), load(taps, 2 * BLOCK_D + first)
                v3 = load(taps, 3 * BLOCK_D + first)
                g1, g2 = recall(width, pulls, first, 1), recall(width, pulls, first, 2)
                g3 = recall(width, pulls, first, 3)
                for j in range(past):
                    grad = weigh(width, zero, v1, v2, v3, zero, g1, g2, g3, load(tail, j * BLOCK_D + first))
                    t = end + j
                    if t - begin >= past:
                        write(dx, (t - past) * channels + here, left, grad)
                    else:
                        store(head, (t - begin) * BLOCK_D + first, grad)
                    g3 = g2
                    g2 = g1
                    g1 = zero
            if len(dinitial):
                store_columns(head, past, count, dinitial, state_at)
        store_columns(sum_weight, width, count, dweight, (group * channels + channel) * width)
        store_block(sum_bias, dbias, group * channels + channel, count)
