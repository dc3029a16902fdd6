"""The second compiled pass of CPU cross-entropy, over blocks of items: gradients of items and bias.

It reads the exponentials that the first pass left (`cpu_forward`), items x lanes with one row per lane.

Legend: V items, d width (a multiple of LANES), `lanes` rows per group.
"""

import numpy as np

from recsys.kernels.cross_entropy.cpu_forward import BLOCK
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    compiled,
    exp2,
    fma,
    load,
    multiply,
    next_task,
    product,
    splat,
    store,
    subtract,
    sum_lanes,
)

_ZERO = np.float32(0.0)
_LOG2_E = np.float32(1.4426950408889634)


@compiled
def items_worker(
    slot: Number,
    queue: Array,
    lanes: Number,
    first: Number,
    last: Number,
    hidden: Array,
    targets: Array,
    scale: Array,
    width: Number,
    rate: Number,
    smoothing: Number,
    tiles: Array,
    references: Array,
    largest: Array,
    inverse: Array,
    d_items: Array,
    d_bias: Array,
) -> None:
    """Add rows first..last-1 to the gradients of items (set by the first rows) and of the bias.

    The share that label smoothing takes evenly from all items is left to the caller.
    """
    count_items = len(d_items) // width
    blocks = (count_items + BLOCK - 1) // BLOCK
    scaled = np.empty(lanes * width, dtype=np.float32)
    factors = np.empty(lanes, dtype=np.float32)
    speed = splat(rate * _LOG2_E)
    biased = len(d_bias) > 0
    while True:
        block = next_task(queue)
        if block >= blocks:
            return
        item0 = block * BLOCK
        size = min(BLOCK, count_items - item0)
        for row0 in range(first, last, lanes):
            count = min(lanes, last - row0)
            group = (row0 - first) // lanes
            tile = (group * count_items + item0) * lanes
            for lane in range(count):
                factors[lane] = largest[row0 + lane]
            for lane in range(count, lanes):
                factors[lane] = _ZERO
            for lane in range(0, lanes, LANES):
                reference = load(references, (group * blocks + block) * lanes + lane)
                store(factors, lane, exp2(multiply(subtract(reference, load(factors, lane)), speed)))
            for lane in range(lanes):
                if lane < count:
                    row = row0 + lane
                    factors[lane] *= inverse[row] * scale[row] * rate
                    for d in range(0, width, LANES):
                        store(
                            scaled, lane * width + d,
                            multiply(load(hidden, row * width + d), splat(factors[lane])),
                        )  # fmt: skip
                else:
                    factors[lane] = _ZERO
            product(
                d_items, item0 * width, width, tiles, tile, lanes, 1, scaled, 0, width, size, width, count,
                row0 > 0,
            )  # fmt: skip
            if biased:
                for item in range(size):
                    sum_ = splat(_ZERO)
                    for lane in range(0, lanes, LANES):
                        sum_ = fma(load(tiles, tile + item * lanes + lane), load(factors, lane), sum_)
                    d_bias[item0 + item] += sum_lanes(sum_)
        for row in range(first, last):
            target = targets[row] - item0
            if 0 <= target < size:
                hit = scale[row] * rate * (smoothing - np.float32(1.0))
                index = (item0 + target) * width
                for d in range(0, width, LANES):
                    gradient = load(d_items, index + d)
                    store(d_items, index + d, fma(splat(hit), load(hidden, row * width + d), gradient))
                if biased:
                    d_bias[item0 + target] += hit
