"""The convolution's forward kernel: a vector of channels runs along the events, its last inputs kept."""

import numpy as np

from recsys.kernels.conv.cpu_rows import (
    BLOCK_D,
    CHUNK,
    ROWS,
    ZERO,
    load_columns,
    recall,
    remember,
    store_columns,
    weigh,
)
from recsys.kernels.shared.vector import LANES, Array, Number, compiled, load, multiply, next_task
from recsys.kernels.shared.vector.activation import decline, read, sigmoid, write
from recsys.kernels.shared.vector.channel_blocks import (
    fill,
    load_block,
)

__all__ = ["FORWARD_SCRATCH", "forward_worker"]

FORWARD_SCRATCH = 2 * ROWS + BLOCK_D
"""float32 elements of scratch space that one worker needs."""


@compiled
def forward_worker(
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
    y: Array,
    final: Array,
) -> None:
    """Draw tasks and convolve them; float32 arrays seen as 1-D, empty ones are absent."""
    past = width - 1
    blocks = (channels + BLOCK_D - 1) // BLOCK_D
    at = slot * FORWARD_SCRATCH
    taps, at = scratch[at : at + ROWS], at + ROWS
    before, at = scratch[at : at + ROWS], at + ROWS
    lift = scratch[at : at + BLOCK_D]
    while True:
        task = next_task(queue)
        if task >= len(order) * blocks:
            return
        group, channel = order[task // blocks], task % blocks * BLOCK_D
        count = min(BLOCK_D, channels - channel)
        load_columns(weight, channel * width, width, count, taps)
        load_block(bias, channel, count, lift)
        for sequence in range(bounds[group], bounds[group + 1]):
            begin: Number = np.int64(offsets[sequence])
            end: Number = np.int64(offsets[sequence + 1])
            state_at = (sequence * channels + channel) * past
            if len(initial):
                load_columns(initial, state_at, past, count, before)
            else:
                fill(before, 0, past * (BLOCK_D // LANES), ZERO)
            for start in range(begin, end, CHUNK):
                events = min(CHUNK, end - start)
                for first in range(0, count, LANES):
                    here, left = channel + first, count - first
                    w0, w1 = load(taps, past * BLOCK_D + first), recall(width, taps, first, 1)
                    w2, w3 = recall(width, taps, first, 2), recall(width, taps, first, 3)
                    x1, x2 = recall(width, before, first, 1), recall(width, before, first, 2)
                    x3 = recall(width, before, first, 3)
                    for t in range(start, start + events):
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
