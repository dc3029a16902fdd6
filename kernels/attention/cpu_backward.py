"""The compiled backward loop of CPU attention over tasks of the batch; scores are computed again.

Compiled twice, with `tables` (see `cpu_bias`) and with None, whose branches numba drops: the loops without a
bias stay as they would be alone.

Legend: L length of the sequence, `lanes` queries of a block (LANES or PANEL, the last ones idle). Tensors are
flat with the strides of events and heads; score tiles are (keys, lanes).
"""

import numpy as np

from recsys.kernels.attention.cpu_bias import (
    COPIES,
    Tables,
    add_bias,
    add_table_gradients,
    clear_diagonals,
    fold_diagonals,
    read_times,
)
from recsys.kernels.attention.cpu_dropout import (
    keep_or_zero,
    query_word,
)
from recsys.kernels.attention.cpu_forward import lay_queries
from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    compiled,
    exp2,
    fma,
    load,
    multiply,
    next_task,
    product,
    select_le,
    splat,
    store,
    subtract,
    sum_lanes,
)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_HIGHEST = np.float32(np.inf)
_LOG2_E = np.float32(1.4426950408889634)


@compiled
def backward_worker(
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
    g: Array,
    g_row: Number,
    g_head: Number,
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
    dq: Array,
    dk: Array,
    dv: Array,
    partial: Array,
) -> None:
    """Compute dq, dk, dv from g, the gradient of out, until the tasks are used up."""
    weights = np.empty(longest * PANEL, dtype=np.float32)
    d_scores = np.empty(longest * PANEL, dtype=np.float32)
    q_tile = np.empty(width * PANEL, dtype=np.float32)
    g_tile = np.empty(width * PANEL, dtype=np.float32)
    row_words = np.zeros(PANEL, dtype=np.int32)
    top = np.empty(PANEL, dtype=np.float32)
    part = np.empty(PANEL, dtype=np.float32)
    delta = np.empty(PANEL, dtype=np.float32)
    rate = splat(scale * _LOG2_E)
    threshold = drop[2]
    dropping = threshold > 0
    to_scale, to_boost = splat(scale), splat(boost)
    if tables is not None:
        rate, to_scale = splat(_LOG2_E), splat(_ONE)
        times = np.empty(PANEL, dtype=np.int64)
        buckets = np.empty(longest * PANEL, dtype=np.int8)
        sums = np.zeros((tables.last + 1) * COPIES, dtype=np.float32)
        diagonals = np.empty(tables.row, dtype=np.float32)
    row = heads * width
    while True:
        task = next_task(queue)
        if task >= tasks.shape[0]:
            return
        sequence, head = tasks[task, 0], tasks[task, 1]
        start: Number = np.int64(bounds[sequence])
        length: Number = np.int64(bounds[sequence + 1]) - start
        all_queries = tasks[task, 2] == 0 and tasks[task, 3] == length
        all_keys = tasks[task, 4] == 0 and tasks[task, 5] == length
        key0 = tasks[task, 4]
        k_at = (start + key0) * k_row + head * k_head
        v_at = (start + key0) * v_row + head * v_head
        if all_queries:
            for key in range(start + key0, start + tasks[task, 5]):
                for d in range(0, width, LANES):
                    store(dk, (key * heads + head) * width + d, splat(_ZERO))
                    store(dv, (key * heads + head) * width + d, splat(_ZERO))
        if tables is not None and all_keys:
            clear_diagonals(tables, length, causal, diagonals)
        for block in range(tasks[task, 2], tasks[task, 3], PANEL):
            count = min(PANEL, length - block)
            keys = (min(tasks[task, 5], block + count) if causal else tasks[task, 5]) - key0
            if keys <= 0:
                continue
            lanes = PANEL if count > LANES else LANES
            q_at = (start + block) * q_row + head * q_head
            g_at = (start + block) * g_row + head * g_head
            lay_queries(q, q_at, q_row, count, width, lanes, q_tile)
            lay_queries(g, g_at, g_row, count, width, lanes, g_tile)
            for lane in range(lanes):
                part[lane] = delta[lane] = _ZERO
                top[lane] = _HIGHEST  # an idle lane weighs nothing, whatever its bias
            for lane in range(count):
                event = (start + block + lane) * heads + head
                top[lane] = largest[event]
                part[lane] = inverse[event]
                dot = splat(_ZERO)
                for d in range(0, width, LANES):
                    dot = fma(load(g, g_at + lane * g_row + d), load(out, event * width + d), dot)
                delta[lane] = sum_lanes(dot)
                if dropping:
                    row_words[lane] = query_word(drop, sequence, head, block + lane)
            product(
                weights, 0, lanes, k, k_at, k_row, 1, q_tile, 0, lanes, keys, lanes, width, False
            )  # fmt: skip
            if tables is not None:
                read_times(tables, start + block, count, lanes, times)
                add_bias(weights, keys, lanes, scale, tables, head, start, block, key0, times, buckets)
            product(
                d_scores, 0, lanes, v, v_at, v_row, 1, g_tile, 0, lanes, keys, lanes, width, False
            )  # fmt: skip
            for at in range(0, lanes, LANES):
                clear = block + at + 1 - key0 if causal else keys
                best, share, mean = load(top, at), load(part, at), load(delta, at)
                for key in range(keys):
                    index = key * lanes + at
                    weight = multiply(exp2(multiply(subtract(load(weights, index), best), rate)), share)
                    d_score = load(d_scores, index)
                    if key >= clear:
                        weight = select_le(key0 + key, block + at, weight, splat(_ZERO))
                    if dropping:
                        kept = keep_or_zero(row_words, at, key0 + key, threshold, weight)
                        d_score = keep_or_zero(row_words, at, key0 + key, threshold, d_score)
                        d_score = multiply(d_score, to_boost)
                        store(weights, index, multiply(kept, to_boost))
                    else:
                        store(weights, index, weight)
                    store(d_scores, index, multiply(multiply(weight, subtract(d_score, mean)), to_scale))
            if tables is not None:
                if all_keys:
                    add_table_gradients(
                        d_scores, keys, lanes, count, causal, tables, block, buckets, sums, diagonals,
                        partial, task * tables.n_entries,
                    )  # fmt: skip
                for index in range(0, keys * lanes, LANES):
                    store(d_scores, index, multiply(load(d_scores, index), splat(scale)))
            if all_queries:
                at = ((start + key0) * heads + head) * width
                product(dv, at, row, weights, 0, lanes, 1, g, g_at, g_row, keys, width, count, True)
                product(dk, at, row, d_scores, 0, lanes, 1, q, q_at, q_row, keys, width, count, True)
            if all_keys:
                at = ((start + block) * heads + head) * width
                product(dq, at, row, d_scores, 0, 1, lanes, k, k_at, k_row, count, width, keys, False)
        if tables is not None and all_keys:
            fold_diagonals(tables, length, causal, diagonals, partial, task * tables.n_entries)
