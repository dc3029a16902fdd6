# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Attention's gradients on the GPU, for long sequences: dk and dv; see `triton_backward_queries`."""

import triton
import triton.language as tl

from recsys.kernels.attention.triton_bias import (
    add_bias,
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
def _add_queries(
    k_tile,
    v_tile,
    key,
    dk_tile,
    dv_tile,
    grad,
    q,
    log_sums,
    means,
    start,
    first,
    length,
    grad_row,
    q_row,
    heads,
    rate,
    seed,
    sequence,
    head,
    threshold,
    boost,
    key_times,
    time_table,
    times,
    buckets,
    position_table,
    entries,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    FMA_EVERY: tl.constexpr,
    EDGE: tl.constexpr,
    DIAGONAL: tl.constexpr,
):
    """Add the parts of dk and dv that BLOCK_M queries from `first` on give; scores lie keys x queries.

    A query outside the sequence has an infinite logarithm and so weighs 0; a key outside is not stored.
    """
    query = first + tl.arange(0, BLOCK_M)
    inside = query < length
    rows = start + query
    row_heads = rows.to(tl.int64) * heads + head
    q_tile = load_rows(q, rows, q_row, inside, HEAD_DIM, BLOCK_D, EDGE)
    g_tile = load_rows(grad, rows, grad_row, inside, HEAD_DIM, BLOCK_D, EDGE)
    if EDGE:
        log_sum = tl.load(log_sums + row_heads, mask=inside, other=float("inf"))
        mean = tl.load(means + row_heads, mask=inside, other=0.0)
    else:
        log_sum = tl.load(log_sums + row_heads)
        mean = tl.load(means + row_heads)
    scores = product(k_tile, flip(q_tile), None) * rate
    query_times = None if times is None else load_masked(times + rows, inside, EDGE)
    scores = add_bias(
        scores, query[None, :], key[:, None], query_times, key_times, 0, 1, head,
        time_table, buckets, position_table, entries, CAUSAL,
    )  # fmt: skip
    scores -= log_sum[None, :]
    if DIAGONAL:
        scores = tl.where(key[:, None] <= query[None, :], scores, float("-inf"))
    weights = exponential(scores, first // BLOCK_M, 0 if EDGE else FMA_EVERY)
    d_scores = product(v_tile, flip(g_tile), None)
    kept = weights
    if seed is not None:
        words = query_words(seed, sequence, head, query)
        kept_ = keep(words[None, :], key[:, None], threshold)
        kept = tl.where(kept_, weights, 0.0)
        d_scores = tl.where(kept_, d_scores * boost, 0.0)
    dv_tile = product(kept.to(g_tile.dtype), g_tile, dv_tile)
    d_scores = weights * (d_scores - mean[None, :])
    dk_tile = product(d_scores.to(q_tile.dtype), q_tile, dk_tile)
    return dk_tile, dv_tile


@triton.jit(
    do_not_specialize=["heads", "threshold", "buckets", "entries"],
)
def backward_keys(
    grad,
    q,
    k,
    v,
    log_sums,
    means,
    dk,
    dv,
    offsets,
    tasks,
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
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    FMA_EVERY: tl.constexpr,
):
    """One program: dk and dv of BLOCK_N keys, a block or part of one, from BLOCK_M queries at a time.

    BLOCK_M divides BLOCK_N, and BLOCK_N divides TASK_ROWS, the rows of a task.
    """
    head = tl.program_id(0) % heads
    part = tl.program_id(0) // heads
    sequence, block = load_task(tasks, part // (TASK_ROWS // BLOCK_N))
    start = tl.load(offsets + sequence)
    length = tl.load(offsets + sequence + 1) - start
    if CAUSAL:  # the first keys have the most queries: take them when the list says last block
        block = (length - 1) // TASK_ROWS - block
    low = block * TASK_ROWS + part % (TASK_ROWS // BLOCK_N) * BLOCK_N
    if low >= length:
        return
    key = low + tl.arange(0, BLOCK_N)
    inside = key < length
    rows = start + key
    k_tile = load_rows(k + head * k_head, rows, k_row, inside, HEAD_DIM, BLOCK_D, True)
    v_tile = load_rows(v + head * v_head, rows, v_row, inside, HEAD_DIM, BLOCK_D, True)
    when = None if times is None else tl.load(times + rows, mask=inside, other=0)
    grad += head * grad_head
    q += head * q_head
    dk_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    clear = 0
    if CAUSAL:
        clear = tl.minimum(low + BLOCK_N, length)
        for first in range(low, clear, BLOCK_M):
            dk_tile, dv_tile = _add_queries(
                k_tile, v_tile, key, dk_tile, dv_tile, grad, q, log_sums, means, start, first, length,
                grad_row, q_row, heads, rate, seed, sequence, head, threshold, boost, when, time_table,
                times, buckets, position_table, entries, HEAD_DIM, BLOCK_D, CAUSAL, BLOCK_M, FMA_EVERY, True,
                True,
            )  # fmt: skip
    whole = length // BLOCK_M * BLOCK_M
    for first in range(clear, whole, BLOCK_M):
        dk_tile, dv_tile = _add_queries(
            k_tile, v_tile, key, dk_tile, dv_tile, grad, q, log_sums, means, start, first, length, grad_row,
            q_row, heads, rate, seed, sequence, head, threshold, boost, when, time_table, times, buckets,
            position_table, entries, HEAD_DIM, BLOCK_D, CAUSAL, BLOCK_M, FMA_EVERY, False, False,
        )  # fmt: skip
    for first in range(tl.maximum(clear, whole), length, BLOCK_M):
        dk_tile, dv_tile = _add_queries(
            k_tile, v_tile, key, dk_tile, dv_tile, grad, q, log_sums, means, start, first, length, grad_row,
            q_row, heads, rate, seed, sequence, head, threshold, boost, when, time_table, times, buckets,
            position_table, entries, HEAD_DIM, BLOCK_D, CAUSAL, BLOCK_M, FMA_EVERY, True, False,
        )  # fmt: skip
    row_heads = rows.to(tl.int64) * heads + head
    at = row_offsets(row_heads, HEAD_DIM, BLOCK_D)
    mask = row_mask(inside, HEAD_DIM, BLOCK_D)
    dk_tile *= scale
    dv_tile *= boost
    tl.store(dk + at, dk_tile.to(dk.dtype.element_ty), mask=mask)
    tl.store(dv + at, dv_tile.to(dv.dtype.element_ty), mask=mask)
