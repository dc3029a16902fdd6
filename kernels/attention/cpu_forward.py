"""The compiled forward loop of CPU attention over tasks of the batch.

Compiled twice, with `tables` (see `cpu_bias`) and with None, whose branches numba drops: the loops without a
bias stay as they would be alone.

Legend: L length of the sequence, `lanes` queries of a block (LANES or PANEL, the last ones idle). Tensors are
flat with the strides of events and heads; score tiles are (keys, lanes).
"""

import numpy as np

from recsys.kernels.attention.cpu_bias import (
    Tables,
    add_bias,
    read_times,
)
from recsys.kernels.attention.cpu_dropout import (
    keep_or_zero,
    query_word,
)
from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    add,
    compiled,
    exp2,
    load,
    maximum,
    multiply,
    next_task,
    product,
    select_le,
    splat,
    store,
    subtract,
    transpose_square,
)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_LOWEST = np.float32(-np.inf)
_LOG2_E = np.float32(1.4426950408889634)


@compiled
def lay_queries(
    source: Array, at: Number, row: Number, count: Number, width: Number, lanes: Number, target: Array
) -> None:
    """Lay `count` rows of `width` as columns of a (width, lanes) tile; idle lanes are zero."""
    for lane in range(0, lanes, LANES):
        there = min(count - lane, LANES)
        for d in range(0, width, LANES):
            transpose_square(target, d * lanes + lane, lanes, source, at + lane * row + d, row, there)


@compiled
def forward_worker(
    slot: Number,
    queue: Array,
    tasks: Array,
    bounds: Array,
    longest: Number,
    q: Array,
    q_row: Number,
    q_head: Number,
    k: Array,
    k_row: Number,
    k_head: Number,
    v: Array,
    v_row: Number,
    v_head: Number,
    width: Number,
    heads: Number,
    causal: Number,
    scale: Number,
    drop: Array,
    boost: Number,
    tables: Tables | None,
    out: Array,
    largest: Array,
    inverse: Array,
) -> None:
    """Compute out, and each softmax's largest score and inverse sum, until the tasks are used up."""
    scores = np.empty(longest * PANEL, dtype=np.float32)
    q_tile = np.empty(width * PANEL, dtype=np.float32)
    row_words = np.zeros(PANEL, dtype=np.int32)
    top = np.empty(PANEL, dtype=np.float32)
    total = np.empty(PANEL, dtype=np.float32)
    rate = splat(scale * _LOG2_E)
    if tables is not None:
        rate = splat(_LOG2_E)
        times = np.empty(PANEL, dtype=np.int64)
        buckets = np.empty(longest * PANEL, dtype=np.int8)
    threshold = drop[2]
    dropping = threshold > 0
    while True:
        task = next_task(queue)
        if task >= tasks.shape[0]:
            return
        sequence, head = tasks[task, 0], tasks[task, 1]
        start: Number = np.int64(bounds[sequence])
        length: Number = np.int64(bounds[sequence + 1]) - start
        for block in range(tasks[task, 2], tasks[task, 3], PANEL):
            count = min(PANEL, length - block)
            lanes = PANEL if count > LANES else LANES
            keys = block + count if causal else length
            lay_queries(q, (start + block) * q_row + head * q_head, q_row, count, width, lanes, q_tile)
            product(
                scores, 0, lanes, k, start * k_row + head * k_head, k_row, 1, q_tile, 0, lanes, keys, lanes,
                width, False,
            )  # fmt: skip
            if tables is not None:
                read_times(tables, start + block, count, lanes, times)
                add_bias(scores, keys, lanes, scale, tables, head, start, block, 0, times, buckets)
            if dropping:
                for lane in range(count):
                    row_words[lane] = query_word(drop, sequence, head, block + lane)
            for at in range(0, lanes, LANES):
                clear = min(keys, block + at + 1) if causal else keys  # keys that every lane sees
                best = splat(_LOWEST)
                for key in range(clear):
                    best = maximum(best, load(scores, key * lanes + at))
                for key in range(clear, keys):
                    score = load(scores, key * lanes + at)
                    best = maximum(best, select_le(key, block + at, score, best))
                sum_ = splat(_ZERO)
                for key in range(keys):
                    weight = exp2(multiply(subtract(load(scores, key * lanes + at), best), rate))
                    if key >= clear:
                        weight = select_le(key, block + at, weight, splat(_ZERO))
                    sum_ = add(sum_, weight)
                    if dropping:
                        weight = keep_or_zero(row_words, at, key, threshold, weight)
                    store(scores, key * lanes + at, weight)
                store(top, at, best)
                store(total, at, sum_)
            product(
                out, ((start + block) * heads + head) * width, heads * width, scores, 0, 1, lanes,
                v, start * v_row + head * v_head, v_row, count, width, keys, False,
            )  # fmt: skip
            for lane in range(count):
                event = (start + block + lane) * heads + head
                largest[event] = top[lane]
                inverse[event] = _ONE / total[lane]
                factor = splat(boost * inverse[event])
                for d in range(0, width, LANES):
                    store(out, event * width + d, multiply(load(out, event * width + d), factor))
