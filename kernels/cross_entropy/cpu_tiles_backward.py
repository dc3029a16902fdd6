"""The second compiled pass of bfloat16 cross-entropy by matrix tiles: gradients of items and bias.

See `cpu_tiles_forward`, whose normalizers it takes.

Legend: N rows, V items, d width (a multiple of 32); rows and items are padded with zeros to multiples of 32.
bfloat16 is held as uint16. `_pairs`: blocks of 32 x 32, (count / 32, d / 32, 16, 32, 2), whose rows are
interleaved two by two as the right side of a product wants them; `_columns`: the same of the transposed
matrix, (count / 32, d / 2, 32, 2).
"""

import numpy as np

from recsys.kernels.cross_entropy.cpu_tiles_products import SPAN, block_gradients, block_logits
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    load,
    multiply,
    next_task,
    scratch,
    splat,
    store,
    subtract,
    sum_lanes,
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
_LOG2_E = np.float32(1.4426950408889634)


@compiled
def items_worker(
    slot: Number,
    queue: Array,
    count: Number,
    items: Number,
    item_rows: Array,
    hidden_columns: Array,
    hidden_pairs: Array,
    bias: Array,
    normalizers: Array,
    factors: Array,
    width: Number,
    rate: Number,
    d_items: Array,
    d_bias: Array,
) -> None:
    """Compute softmax's part of the gradients of all items and, where `d_bias` is not empty, of the bias.

    Args:
        slot: see `recsys.kernels.shared.threads.launch`.
        queue: likewise.
        count: rows N.
        items: V.
        item_rows: (padded V, d) bfloat16 as uint16.
        hidden_columns: (padded N * d,) the rows; see above.
        hidden_pairs: likewise.
        bias: (V,) float32, or empty.
        normalizers: (padded N,) float32, as left by `rows_worker`.
        factors: (padded N,) float32, scale * rate; 0 in the padding.
        width: d.
        rate: 1 / temperature.
        d_items: (padded V, d) float32, written.
        d_bias: (V,) float32, written, or empty.
    """
    biased = len(bias) > 0
    speed = splat(rate * _LOG2_E)
    logits = scratch(BLOCK * SPAN)
    shares = narrow_scratch(BLOCK * SPAN)
    share_sums = np.empty(BLOCK, dtype=np.float32)
    sums = scratch(BLOCK * width)
    before = begin_tiles()
    while True:
        item0 = next_task(queue) * BLOCK
        if item0 >= items:
            break
        size = min(BLOCK, items - item0)
        share_sums[:] = _ZERO
        for index in range(0, BLOCK * width, LANES):
            store(sums, index, splat(_ZERO))
        for row0 in range(0, count, SPAN):
            padded = (min(SPAN, count - row0) + BLOCK - 1) // BLOCK * BLOCK
            block_logits(logits, item_rows, item0, hidden_columns, row0, padded, width)
            for item in range(BLOCK):
                shift = splat(bias[item0 + item] if biased and item < size else _ZERO)
                sum_ = splat(_ZERO)
                for row in range(0, padded, LANES):
                    logit = load(logits, item * SPAN + row)
                    if biased:
                        logit = add(logit, shift)
                    exponent = subtract(multiply(logit, speed), load(normalizers, row0 + row))
                    share = multiply(narrow_exp2(exponent), load(factors, row0 + row))
                    sum_ = add(sum_, share)
                    store_narrow(shares, item * SPAN + row, share)
                share_sums[item] += sum_lanes(sum_)
            block_gradients(sums, shares, hidden_pairs, row0, padded, width)
        for index in range(0, size * width, LANES):
            store(d_items, item0 * width + index, load(sums, index))
        if biased:
            for item in range(size):
                d_bias[item0 + item] = share_sums[item]
    end_tiles(before)
