# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Attention's gradients on the GPU, for long sequences: dq and those of the bias's tables.

A program owns its rows of dq, as one of `triton_backward_keys` owns its rows of dk and dv, so nothing is
added by two programs: no atomics, no order.
"""

import triton
import triton.language as tl

from recsys.kernels.attention.triton_bias import (
    BUCKETS,
    add_bias,
    bucket_range,
    pass_on,
    store_diagonals,
    store_ends,
    sum_buckets,
    sum_diagonals,
    sum_ends,
    time_buckets,
)
from recsys.kernels.attention.triton_tile import (
    exponential,
    flip,
    keep,
    load_masked,
    load_rows,
    load_task,
    product,
    query_words,
    row_mask,
    row_offsets,
)


@triton.jit
def _add_keys(
    q_tile,
    g_tile,
    low,
    query,
    log_sum,
    mean,
    dq_tile,
    shares,
    passed,
    far,
    near,
    k,
    v,
    start,
    first,
    length,
    k_row,
    v_row,
    rate,
    words,
    threshold,
    boost,
    head,
    query_times,
    time_row,
    position_row,
    time_table,
    times,
    buckets,
    position_table,
    entries,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    FMA_EVERY: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Add the part of dq (without the factor scale) that BLOCK_N keys from `first` on give.

    And their parts of the tables' gradients: `shares` by time bucket; by distance, what later keys still add
    to is `passed` on, the rest is stored or, where it has no entry of its own, added to `far` and `near`.
    """
    key = first + tl.arange(0, BLOCK_N)
    inside = key < length
    k_tile = load_rows(k, start + key, k_row, inside, HEAD_DIM, BLOCK_D, EDGE)
    scores = product(q_tile, flip(k_tile), None) * rate
    key_times = None if times is None else load_masked(times + start + key, inside, EDGE)
    scores = add_bias(
        scores, query[:, None], key[None, :], query_times, key_times, 1, 0, head,
        time_table, buckets, position_table, entries, CAUSAL,
    )  # fmt: skip
    scores -= log_sum[:, None]
    if EDGE:
        visible = inside[None, :]
        if CAUSAL:
            visible = visible & (key[None, :] <= query[:, None])
        scores = tl.where(visible, scores, float("-inf"))
    weights = exponential(scores, first // BLOCK_N, 0 if EDGE else FMA_EVERY)
    v_tile = load_rows(v, start + key, v_row, inside, HEAD_DIM, BLOCK_D, EDGE)
    d_scores = product(g_tile, flip(v_tile), None)
    if words is not None:
        d_scores = tl.where(keep(words[:, None], key[None, :], threshold), d_scores * boost, 0.0)
    d_scores = weights * (d_scores - mean[:, None])
    dq_tile = product(d_scores.to(k_tile.dtype), k_tile, dq_tile)
    if time_row is not None:
        lowest, highest = bucket_range(query_times, key_times, query < length, inside, buckets)
        bucket = time_buckets(tl.expand_dims(query_times, 1), tl.expand_dims(key_times, 0), buckets)
        shares = sum_buckets(shares, d_scores, bucket, lowest, highest)
    if position_row is not None:
        ahead, behind = sum_diagonals(d_scores, tl.arange(0, BLOCK_N), BLOCK_M)
        passed += ahead
        lane = tl.arange(0, BLOCK_M)
        done = lane >= BLOCK_M - BLOCK_N  # no later key is that far back
        store_diagonals(position_row, passed, lane + low - first, done, entries, CAUSAL)
        far_, near_ = sum_ends(d_scores, query[:, None] - key[None, :], entries, CAUSAL)
        far += far_
        near += near_
        passed = pass_on(passed, behind, BLOCK_N)
    return dq_tile, shares, passed, far, near


@triton.jit(
    do_not_specialize=["first", "heads", "threshold", "buckets", "entries"],
)
def backward_queries(
    grad,
    q,
    k,
    v,
    out,
    log_sums,
    means,
    dq,
    time_parts,
    position_parts,
    offsets,
    tasks,
    first,
    grad_row,
    grad_head,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    heads,
    scale,
    rate,
    seed,
    threshold,
    boost,
    time_table,
    times,
    buckets,
    position_table,
    entries,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr,
    TASK_ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    FMA_EVERY: tl.constexpr,
):
    """One program: dq of BLOCK_M queries, a block or part of one, from BLOCK_N keys at a time.

    And the queries' means of d_scores (grad . out), which `backward_keys` reads. BLOCK_N divides BLOCK_M.
    """
    head = tl.program_id(0) % heads
    part = tl.program_id(0) // heads
    sequence, block = load_task(tasks, first + part // (TASK_ROWS // BLOCK_M))
    low = block * TASK_ROWS + part % (TASK_ROWS // BLOCK_M) * BLOCK_M
    start = tl.load(offsets + sequence)
    length = tl.load(offsets + sequence + 1) - start
    if low >= length:
        return
    query = low + tl.arange(0, BLOCK_M)
    rows = start + query
    inside = query < length
    row_heads = rows.to(tl.int64) * heads + head
    g_tile = load_rows(grad + head * grad_head, rows, grad_row, inside, HEAD_DIM, BLOCK_D, True)
    out_tile = load_rows(out, row_heads, HEAD_DIM, inside, HEAD_DIM, BLOCK_D, True)
    mean = tl.sum(g_tile.to(tl.float32) * out_tile.to(tl.float32), 1)
    tl.store(means + row_heads, mean, mask=inside)
    log_sum = tl.load(log_sums + row_heads, mask=inside, other=float("inf"))
    q_tile = load_rows(q + head * q_head, rows, q_row, inside, HEAD_DIM, BLOCK_D, True)
    k += head * k_head
    v += head * v_head
    words = None if seed is None else query_words(seed, sequence, head, query)
    when = None if times is None else tl.load(times + rows, mask=inside, other=0)
    program = tl.program_id(0).to(tl.int64)
    time_row = None if time_parts is None else time_parts + program * buckets
    position_row = None if position_parts is None else position_parts + program * entries
    shares = tl.zeros((BUCKETS,), tl.float32)
    passed = tl.zeros((BLOCK_M,), tl.float32)
    far = 0.0
    near = 0.0
    dq_tile = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    clear = low if CAUSAL else length // BLOCK_N * BLOCK_N
    end = tl.minimum(low + BLOCK_M, length) if CAUSAL else length
    for key in range(0, clear, BLOCK_N):
        dq_tile, shares, passed, far, near = _add_keys(
            q_tile, g_tile, low, query, log_sum, mean, dq_tile, shares, passed, far, near, k, v, start, key,
            length, k_row, v_row, rate, words, threshold, boost, head, when, time_row, position_row,
            time_table, times, buckets, position_table, entries, HEAD_DIM, BLOCK_D, CAUSAL, BLOCK_M, BLOCK_N,
            FMA_EVERY, False,
        )  # fmt: skip
    for key in range(clear, end, BLOCK_N):
        dq_tile, shares, passed, far, near = _add_keys(
            q_tile, g_tile, low, query, log_sum, mean, dq_tile, shares, passed, far, near, k, v, start, key,
            length, k_row, v_row, rate, words, threshold, boost, head, when, time_row, position_row,
            time_table, times, buckets, position_table, entries, HEAD_DIM, BLOCK_D, CAUSAL, BLOCK_M, BLOCK_N,
            FMA_EVERY, True,
        )  # fmt: skip
    dq_tile *= scale
    tl.store(
        dq + row_offsets(row_heads, HEAD_DIM, BLOCK_D),
        dq_tile.to(dq.dtype.element_ty),
        mask=row_mask(inside, HEAD_DIM, BLOCK_D),
    )
    if time_row is not None:
        lane = tl.arange(0, BUCKETS)
        tl.store(time_row + lane, shares, mask=lane < buckets)
    if position_row is not None:
        lane = tl.arange(0, BLOCK_M)
        # `passed` starts at the key after the last block of keys.
        distance = lane + low - tl.cdiv(end, BLOCK_N) * BLOCK_N
        store_diagonals(position_row, passed, distance, lane >= 0, entries, CAUSAL)
        store_ends(position_row, far, near, entries, CAUSAL)
