"""The convolution's kernels: a vector of channels runs along the events, its last inputs in registers.

A piece of work is a group of consecutive sequences times a block of channels, as in the scan.
"""

from typing import Any

import numpy as np

from recsys.kernels.activation import decline, inlined, sigmoid, store_first
from recsys.kernels.scan.blocks import fill, load_block, store_block
from recsys.kernels.scan.forward import read
from recsys.kernels.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    fma,
    load,
    multiply,
    next_ticket,
    splat,
    store,
    subtract,
)

__all__ = ["BLOCK", "SCRATCH", "backward_worker", "forward_worker"]

BLOCK = 64
"""Channels of a piece."""

CHUNK = 32
"""Events that one vector of channels takes before the next vector: their rows then stay in cache."""

TAPS = 4
"""The widest filter."""

ROWS = TAPS * BLOCK

SCRATCH = 6 * ROWS + 2 * BLOCK
"""float32 elements of scratch space that one worker needs."""

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def load_columns(source: Array, at: Number, columns: Number, count: Number, target: Array) -> None:
    """Lay column j of `count` rows of `columns` values from `at` as row j of `target`, zeros behind it."""
    fill(target, 0, columns * (BLOCK // LANES), _ZERO)
    for channel in range(count):
        for j in range(columns):
            target[j * BLOCK + channel] = source[at + channel * columns + j]


@compiled
def store_columns(source: Array, columns: Number, count: Number, target: Array, at: Number) -> None:
    """Undo `load_columns`."""
    for channel in range(count):
        for j in range(columns):
            target[at + channel * columns + j] = source[j * BLOCK + channel]


@inlined
def weigh(width: Any, w0: Any, w1: Any, w2: Any, w3: Any, x0: Any, x1: Any, x2: Any, x3: Any, y: Any) -> Any:
    """Add the first `width` products to y; the others are not formed, for their x may be infinite."""
    y = fma(w1, x1, fma(w0, x0, y))
    if width > 2:
        y = fma(w2, x2, y)
    if width > 3:
        y = fma(w3, x3, y)
    return y


@inlined
def recall(width: Any, rows: Any, first: Any, back: Any) -> Any:
    """Load what was `back` events ago; rows lie oldest first. Beyond the filter's width, any value."""
    return load(rows, max(width - 1 - back, 0) * BLOCK + first)


@inlined
def remember(width: Any, rows: Any, first: Any, v1: Any, v2: Any, v3: Any) -> None:
    """Undo `recall`."""
    store(rows, (width - 2) * BLOCK + first, v1)
    if width > 2:
        store(rows, (width - 3) * BLOCK + first, v2)
    if width > 3:
        store(rows, first, v3)


@inlined
def write(array: Any, at: Any, left: Any, value: Any) -> Any:
    """Store a vector of which the first `left` lanes exist."""
    if left >= LANES:
        store(array, at, value)
    else:
        store_first(array, at, left, value)


@inlined
def gather(width: Any, rows: Any, first: Any, s0: Any, s1: Any, s2: Any, s3: Any) -> None:
    """Add a chunk's sums to those of the taps, the current event's last."""
    at = (width - 1) * BLOCK + first
    store(rows, at, add(load(rows, at), s0))
    store(rows, at - BLOCK, add(load(rows, at - BLOCK), s1))
    if width > 2:
        store(rows, at - 2 * BLOCK, add(load(rows, at - 2 * BLOCK), s2))
    if width > 3:
        store(rows, first, add(load(rows, first), s3))


@compiled
def forward_worker(
    slot: Number,
    tickets: Array,
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
    y: Array,
    final: Array,
) -> None:
    """Draw pieces and convolve them; float32 arrays seen as 1-D, empty ones are absent."""
    past = width - 1
    blocks = (channels + BLOCK - 1) // BLOCK
    at = slot * SCRATCH
    taps, at = scratch[at : at + ROWS], at + ROWS
    before, at = scratch[at : at + ROWS], at + ROWS
    lift = scratch[at : at + BLOCK]
    while True:
        piece = next_ticket(tickets)
        if piece >= len(order) * blocks:
            return
        group, channel = order[piece // blocks], piece % blocks * BLOCK
        count = min(BLOCK, channels - channel)
        load_columns(weight, channel * width, width, count, taps)
        load_block(bias, channel, count, lift)
        for sequence in range(bounds[group], bounds[group + 1]):
            begin, end = np.int64(offsets[sequence]), np.int64(offsets[sequence + 1])
            state_at = (sequence * channels + channel) * past
            if len(initial):
                load_columns(initial, state_at, past, count, before)
            else:
                fill(before, 0, past * (BLOCK // LANES), _ZERO)
            for start in range(begin, end, CHUNK):
                for first in range(0, count, LANES):
                    here, left = channel + first, count - first
                    w0, w1 = load(taps, past * BLOCK + first), recall(width, taps, first, 1)
                    w2, w3 = recall(width, taps, first, 2), recall(width, taps, first, 3)
                    x1, x2 = recall(width, before, first, 1), recall(width, before, first, 2)
                    x3 = recall(width, before, first, 3)
                    for t in range(start, min(start + CHUNK, end)):
                        x0 = read(x, t * x_row + here, left)
                        total = weigh(width, w0, w1, w2, w3, x0, x1, x2, x3, load(lift, first))
                        if gated:
                            total = multiply(total, sigmoid(total, decline(total)))
                        write(y, t * channels + here, left, total)
                        x3 = x2
                        x2 = x1
                        x1 = x0
                    remember(width, before, first, x1, x2, x3)
            if len(final):
                store_columns(before, past, count, final, state_at)


@compiled
def backward_worker(
    slot: Number,
    tickets: Array,
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
    """Draw pieces and differentiate them; arguments as of `forward_worker`.

    With g the gradient before the activation, input i of a sequence (counted from `width - 1` before its
    start) receives the sum over j of weight[:, j] g[i - j]: one more run along the events. dweight (groups,
    d, width) and dbias (groups, d) are per group of sequences: the caller adds them up in order.
    """
    past = width - 1
    blocks = (channels + BLOCK - 1) // BLOCK
    at = slot * SCRATCH
    taps, at = scratch[at : at + ROWS], at + ROWS
    before, at = scratch[at : at + ROWS], at + ROWS
    lift, at = scratch[at : at + BLOCK], at + BLOCK
    pulls, at = scratch[at : at + ROWS], at + ROWS
    tail, at = scratch[at : at + ROWS], at + ROWS
    head, at = scratch[at : at + ROWS], at + ROWS
    sum_weight, at = scratch[at : at + ROWS], at + ROWS
    sum_bias = scratch[at : at + BLOCK]
    zero = splat(_ZERO)
    while True:
        piece = next_ticket(tickets)
        if piece >= len(order) * blocks:
            return
        group, channel = order[piece // blocks], piece % blocks * BLOCK
        count = min(BLOCK, channels - channel)
        load_columns(weight, channel * width, width, count, taps)
        load_block(bias, channel, count, lift)
        fill(sum_weight, 0, TAPS * (BLOCK // LANES), _ZERO)
        fill(sum_bias, 0, BLOCK // LANES, _ZERO)
        for sequence in range(bounds[group], bounds[group + 1]):
            begin, end = np.int64(offsets[sequence]), np.int64(offsets[sequence + 1])
            state_at = (sequence * channels + channel) * past
            if len(initial):
                load_columns(initial, state_at, past, count, before)
            else:
                fill(before, 0, past * (BLOCK // LANES), _ZERO)
            if len(dfinal):
                load_columns(dfinal, state_at, past, count, tail)
            else:
                fill(tail, 0, past * (BLOCK // LANES), _ZERO)
            fill(pulls, 0, past * (BLOCK // LANES), _ZERO)
            for start in range(begin, end, CHUNK):
                for first in range(0, count, LANES):
                    here, left = channel + first, count - first
                    w0, w1 = load(taps, past * BLOCK + first), recall(width, taps, first, 1)
                    w2, w3 = recall(width, taps, first, 2), recall(width, taps, first, 3)
                    x1, x2 = recall(width, before, first, 1), recall(width, before, first, 2)
                    x3 = recall(width, before, first, 3)
                    v0, v1 = load(taps, first), load(taps, BLOCK + first)
                    v2, v3 = load(taps, 2 * BLOCK + first), load(taps, 3 * BLOCK + first)
                    g1, g2 = recall(width, pulls, first, 1), recall(width, pulls, first, 2)
                    g3 = recall(width, pulls, first, 3)
                    s0, s1, s2, s3, s = zero, zero, zero, zero, zero
                    for t in range(start, min(start + CHUNK, end)):
                        x0 = read(x, t * x_row + here, left)
                        g0 = read(dy, t * dy_row + here, left)
                        if gated:
                            total = weigh(width, w0, w1, w2, w3, x0, x1, x2, x3, load(lift, first))
                            open_ = sigmoid(total, decline(total))
                            bend = fma(total, subtract(splat(_ONE), open_), splat(_ONE))
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
                            store(head, (t - begin) * BLOCK + first, grad)
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
                v1, v2 = load(taps, BLOCK + first), load(taps, 2 * BLOCK + first)
                v3 = load(taps, 3 * BLOCK + first)
                g1, g2 = recall(width, pulls, first, 1), recall(width, pulls, first, 2)
                g3 = recall(width, pulls, first, 3)
                for j in range(past):
                    grad = weigh(width, zero, v1, v2, v3, zero, g1, g2, g3, load(tail, j * BLOCK + first))
                    t = end + j
                    if t - begin >= past:
                        write(dx, (t - past) * channels + here, left, grad)
                    else:
                        store(head, (t - begin) * BLOCK + first, grad)
                    g3 = g2
                    g2 = g1
                    g1 = zero
            if len(dinitial):
                store_columns(head, past, count, dinitial, state_at)
        store_columns(sum_weight, width, count, dweight, (group * channels + channel) * width)
        store_block(sum_bias, dbias, group * channels + channel, count)
