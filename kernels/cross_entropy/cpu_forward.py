"""The first compiled pass of CPU cross-entropy, over groups of rows: losses and their gradients.

A group's logits lie transposed, items x lanes with one row per lane, so that softmax runs lane by lane, the
item table is read in index and every sum has one order. The pass goes through the catalog with a running
maximum: a block's exponentials refer to the maximum up to that block, which is kept with them.

Legend: V items, d width (a multiple of LANES), `lanes` rows per group.
"""

import math

import numpy as np

from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    exp2,
    fma,
    load,
    maximum,
    multiply,
    next_task,
    product,
    splat,
    store,
    subtract,
    transpose_square,
)

BLOCK = 256
"""Items per block: with 64 lanes and d = 64, a block's logits and item vectors take 64 KiB each."""

MOST_LANES = 64

_ZERO = np.float32(0.0)
_LOWEST = np.float32(np.finfo(np.float32).min)
_LOG2_E = np.float32(1.4426950408889634)


@compiled
def rows_worker(
    slot: Number,
    queue: Array,
    lanes: Number,
    first: Number,
    last: Number,
    hidden: Array,
    items: Array,
    bias: Array,
    targets: Array,
    scale: Array,
    mean_item: Array,
    width: Number,
    rate: Number,
    smoothing: Number,
    tiles: Array,
    references: Array,
    losses: Array,
    largest: Array,
    inverse: Array,
    d_hidden: Array,
) -> None:
    """Compute losses of rows first..last-1 and, where `d_hidden` is not empty, their gradients.

    Leaves exponentials in `tiles`, what they refer to in `references`, and each row's largest logit and
    inverse sum, for `items_worker`. `rate` is 1 / temperature; `scale` is a row's weight in the summed loss.
    """
    count_items = len(items) // width
    blocks = (count_items + BLOCK - 1) // BLOCK
    keep = len(d_hidden) > 0
    own = np.empty(BLOCK * lanes, dtype=np.float32)
    columns = np.empty(width * lanes, dtype=np.float32)
    sums = np.empty(width * lanes, dtype=np.float32)
    top = np.empty(lanes, dtype=np.float32)
    total = np.empty(lanes, dtype=np.float32)
    whole = np.empty(lanes, dtype=np.float32)
    shrink = np.empty(lanes, dtype=np.float32)
    at_target = np.empty(lanes, dtype=np.float32)
    speed = splat(rate * _LOG2_E)
    biased = len(bias) > 0
    smoothed = smoothing > _ZERO
    while True:
        group = next_task(queue)
        row0 = first + group * lanes
        if row0 >= last:
            return
        count = min(lanes, last - row0)
        for lane in range(0, lanes, LANES):
            for d in range(0, width, LANES):
                if lane < count:
                    transpose_square(
                        columns, d * lanes + lane, lanes, hidden, (row0 + lane) * width + d, width,
                        min(LANES, count - lane),
                    )  # fmt: skip
                else:
                    for column in range(d, d + LANES):
                        store(columns, column * lanes + lane, splat(_ZERO))
            store(top, lane, splat(_LOWEST))
            store(total, lane, splat(_ZERO))
            store(whole, lane, splat(_ZERO))
        for block in range(blocks):
            item0 = block * BLOCK
            size = min(BLOCK, count_items - item0)
            tile, at = (tiles, (group * count_items + item0) * lanes) if keep else (own, 0)
            product(
                tile, at, lanes, items, item0 * width, width, 1, columns, 0, lanes, size, lanes, width, False
            )  # fmt: skip
            for lane in range(0, lanes, LANES):
                old = load(top, lane)
                best = old
                if biased:
                    for item in range(size):
                        index = at + item * lanes + lane
                        store(tile, index, add(load(tile, index), splat(bias[item0 + item])))
                for item in range(size):
                    best = maximum(best, load(tile, at + item * lanes + lane))
                if smoothed:
                    sum_ = load(whole, lane)
                    for item in range(size):
                        sum_ = add(sum_, load(tile, at + item * lanes + lane))
                    store(whole, lane, sum_)
                store(top, lane, best)
                store(shrink, lane, exp2(multiply(subtract(old, best), speed)))
            for lane in range(count):
                target = targets[row0 + lane] - item0
                if 0 <= target < size:
                    at_target[lane] = tile[at + target * lanes + lane]
            for lane in range(0, lanes, LANES):
                best = load(top, lane)
                sum_ = splat(_ZERO)
                for item in range(size):
                    index = at + item * lanes + lane
                    power = exp2(multiply(subtract(load(tile, index), best), speed))
                    store(tile, index, power)
                    sum_ = add(sum_, power)
                store(total, lane, fma(load(total, lane), load(shrink, lane), sum_))
                if keep:
                    store(references, (group * blocks + block) * lanes + lane, best)
            if keep:
                if block > 0:
                    for lane in range(count):
                        factor = shrink[lane]
                        if factor != np.float32(1.0):
                            for d in range(0, width, LANES):
                                index = lane * width + d
                                store(sums, index, multiply(load(sums, index), splat(factor)))
                product(
                    sums, 0, width, tile, at, 1, lanes, items, item0 * width, width, count, width, size,
                    block > 0,
                )  # fmt: skip
        for lane in range(count):
            row = row0 + lane
            loss = (top[lane] - at_target[lane]) * rate + np.float32(math.log(total[lane]))
            if smoothed:
                loss += smoothing * (at_target[lane] - whole[lane] / np.float32(count_items)) * rate
            losses[row] = loss
            if keep:
                largest[row] = top[lane]
                inverse[row] = np.float32(1.0) / total[lane]
                factor = splat(scale[row] * rate)
                part = splat(inverse[row])
                hit = splat(smoothing - np.float32(1.0))
                target = targets[row] * width
                for d in range(0, width, LANES):
                    gradient = fma(hit, load(items, target + d), multiply(load(sums, lane * width + d), part))
                    if smoothed:
                        gradient = subtract(gradient, multiply(splat(smoothing), load(mean_item, d)))
                    store(d_hidden, row * width + d, multiply(gradient, factor))
