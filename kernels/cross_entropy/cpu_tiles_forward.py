"""The first compiled pass of bfloat16 cross-entropy by matrix tiles: losses and gradients of rows.

Both passes walk like attention: a block of 32 rows (then of 32 items) meets the other side in spans of 128;
logits come from matrix tiles, become probabilities in float32, and go into tiles again, rounded to bfloat16,
for the gradient. This pass keeps a running maximum and corrects what it has summed when that grows; the
second one (`cpu_tiles_backward`) knows each row's normalizer and computes the logits anew, transposed. Twice
the products and exponentials, and no exponential is stored.

Legend: N rows, V items, d width (a multiple of 32); rows and items are padded with zeros to multiples of 32.
bfloat16 is held as uint16. `_pairs`: blocks of 32 x 32, (count / 32, d / 32, 16, 32, 2), whose rows are
interleaved two by two as the right side of a product wants them; `_columns`: the same of the transposed
matrix, (count / 32, d / 2, 32, 2).
"""

import math

import numpy as np

from recsys.kernels.cross_entropy.cpu_tiles_products import SPAN, block_gradients, block_logits
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    fma,
    load,
    maximum,
    multiply,
    next_task,
    scratch,
    splat,
    store,
    sum_lanes,
)
from recsys.kernels.shared.vector.lanes import (
    max_lanes,
)
from recsys.kernels.shared.vector.tiles import (
    BLOCK,
    begin_tiles,
    end_tiles,
    narrow_exp2,
    narrow_scratch,
    store_narrow,
)

_ZERO = np.float32(0.0)
_LOWEST = np.float32(np.finfo(np.float32).min)
_LOG2_E = np.float32(1.4426950408889634)


@compiled
def rows_worker(
    slot: Number,
    queue: Array,
    count: Number,
    items: Number,
    hidden: Array,
    item_columns: Array,
    item_pairs: Array,
    bias: Array,
    targets: Array,
    scale: Array,
    whole: Array,
    width: Number,
    rate: Number,
    smoothing: Number,
    losses: Array,
    normalizers: Array,
    d_hidden: Array,
) -> None:
    """Compute losses and normalizers of all rows and, unless `d_hidden` is empty, softmax's part of it.

    Args:
        slot: see `recsys.kernels.shared.threads.launch`.
        queue: likewise.
        count: rows N.
        items: V.
        hidden: (padded N, d) bfloat16 as uint16.
        item_columns: (padded V * d,) the items; see above.
        item_pairs: likewise.
        bias: (V,) float32, or empty.
        targets: (N,) int64.
        scale: (N,) float32, weight of a row in the summed loss.
        whole: (N,) float32, sum of a row's logits over all items, for label smoothing.
        width: d.
        rate: 1 / temperature.
        smoothing: label smoothing.
        losses: (N,) float32, written: without scale.
        normalizers: (N,) float32, written: log2 of the sum of 2^(logit * rate * log2 e).
        d_hidden: (padded N, d) float32, written, or empty.
    """
    keep = len(d_hidden) > 0
    biased = len(bias) > 0
    speed = rate * _LOG2_E
    logits = scratch(BLOCK * SPAN)
    shares = narrow_scratch(BLOCK * SPAN)
    sums = scratch(BLOCK * width)
    top = np.empty(BLOCK, dtype=np.float32)
    total = np.empty(BLOCK, dtype=np.float32)
    at_target = np.empty(BLOCK, dtype=np.float32)
    before = begin_tiles()
    while True:
        row0 = next_task(queue) * BLOCK
        if row0 >= count:
            break
        rows = min(BLOCK, count - row0)
        top[:] = _LOWEST
        total[:] = _ZERO
        for index in range(0, BLOCK * width, LANES):
            store(sums, index, splat(_ZERO))
        for item0 in range(0, items, SPAN):
            size = min(SPAN, items - item0)
            padded = (size + BLOCK - 1) // BLOCK * BLOCK
            block_logits(logits, hidden, row0, item_columns, item0, padded, width)
            for row in range(BLOCK):
                at = row * SPAN
                if biased:
                    for item in range(size):
                        logits[at + item] += bias[item0 + item]
                for item in range(size, padded):
                    logits[at + item] = _LOWEST
                if row < rows:
                    target = targets[row0 + row] - item0
                    if 0 <= target < size:
                        at_target[row] = logits[at + target]
                peak = load(logits, at)
                for item in range(LANES, padded, LANES):
                    peak = maximum(peak, load(logits, at + item))
                best = max_lanes(peak)
                if best > top[row]:
                    # The exponent below -126, at the first span, gives 0.
                    factor = np.float32(2.0) ** max((top[row] - best) * speed, np.float32(-149.0))
                    total[row] *= factor
                    if keep:
                        for d in range(0, width, LANES):
                            index = row * width + d
                            store(sums, index, multiply(load(sums, index), splat(factor)))
                    top[row] = best
                shift = splat(-top[row] * speed)
                sum_ = splat(_ZERO)
                for item in range(0, padded, LANES):
                    power = narrow_exp2(fma(load(logits, at + item), splat(speed), shift))
                    sum_ = add(sum_, power)
                    if keep:
                        store_narrow(shares, at + item, power)
                total[row] += sum_lanes(sum_)
            if keep:
                block_gradients(sums, shares, item_pairs, item0, padded, width)
        for row in range(rows):
            index = row0 + row
            normalizer = top[row] * speed + np.float32(math.log2(total[row]))
            normalizers[index] = normalizer
            loss = (top[row] - at_target[row]) * rate + np.float32(math.log(total[row]))
            if smoothing > _ZERO:
                loss += smoothing * (at_target[row] - whole[index] / np.float32(items)) * rate
            losses[index] = loss
            if keep:
                factor = splat(scale[index] * rate / total[row])
                for d in range(0, width, LANES):
                    store(d_hidden, index * width + d, multiply(load(sums, row * width + d), factor))
    end_tiles(before)
