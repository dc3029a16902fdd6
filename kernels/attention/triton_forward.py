# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Attention's output on the GPU: whole short sequences, and blocks of queries of long ones.

Scores are in units of log2, so that softmax needs exp2 alone; what is saved of a row is the base-2 logarithm
of the sum of its exponentials.
"""

import triton
import triton.language as tl

from recsys.kernels.attention.triton_bias import add_bias
from recsys.kernels.attention.triton_tile import (
    exponential,
    flip,
    keep,
    load_masked,
    load_rows,
    load_sequences,
    load_task,
    product,
    query_words,
    row_mask,
    row_offsets,
)

_LOWEST = tl.constexpr(-3.0e38)


@triton.jit(
    do_not_specialize=["first", "last", "heads", "threshold", "buckets", "entries"],
)
def forward_short(
    q,
    k,
    v,
    out,
    log_sums,
    offsets,
    tasks,
    first,
    last,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    heads,
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
    BLOCK_L: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One program: GROUP sequences of at most BLOCK_L events, one head."""
    head = tl.program_id(0) % heads
    slot = first + tl.program_id(0) // heads * GROUP + tl.arange(0, GROUP)[:, None]
    used = slot < last
    sequence = load_sequences(tasks, slot, used)
    start = tl.load(offsets + sequence, mask=used, other=0)
    length = tl.load(offsets + sequence + 1, mask=used, other=0) - start
    index = tl.arange(0, BLOCK_L)[None, :]
    inside = index < length  # (GROUP, BLOCK_L)
    rows = start + index
    q_tile = load_rows(q + head * q_head, rows, q_row, inside, HEAD_DIM, BLOCK_D, True)
    k_tile = load_rows(k + head * k_head, rows, k_row, inside, HEAD_DIM, BLOCK_D, True)
    v_tile = load_rows(v + head * v_head, rows, v_row, inside, HEAD_DIM, BLOCK_D, True)
    query, key = tl.expand_dims(index, 2), tl.expand_dims(index, 1)
    scores = product(q_tile, flip(k_tile), None) * rate
    when = None if times is None else tl.load(times + rows, mask=inside, other=0)
    scores = add_bias(
        scores, query, key, when, when, 2, 1, head, time_table, buckets, position_table,
        entries, CAUSAL,
    )  # fmt: skip
    visible = tl.expand_dims(inside, 1)
    if CAUSAL:
        visible = visible & (key <= query)
    scores = tl.where(visible, scores, float("-inf"))
    top = tl.maximum(tl.max(scores, 2), _LOWEST)  # an unused slot sees nothing
    weights = tl.exp2(scores - tl.expand_dims(top, 2))
    total = tl.sum(weights, 2)
    total = tl.where(total == 0.0, 1.0, total)
    if seed is not None:
        words = query_words(seed, sequence, head, index)
        weights = tl.where(keep(tl.expand_dims(words, 2), key, threshold), weights, 0.0)
    mixed = product(weights.to(v_tile.dtype), v_tile, None)
    mixed *= tl.expand_dims(boost / total, 2)
    row_heads = rows.to(tl.int64) * heads + head
    tl.store(
        out + row_offsets(row_heads, HEAD_DIM, BLOCK_D),
        mixed.to(out.dtype.element_ty),
        mask=row_mask(inside, HEAD_DIM, BLOCK_D),
    )
    tl.store(log_sums + row_heads, top + tl.log2(total), mask=inside)


@triton.jit
def _absorb(
    q_tile,
    query,
    top,
    total,
    mixed,
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
    head,
    query_times,
    time_table,
    times,
    buckets,
    position_table,
    entries,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_N: tl.constexpr,
    FMA_EVERY: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Take BLOCK_N keys from `first` on into the running softmax; all are seen by all queries unless EDGE."""
    key = first + tl.arange(0, BLOCK_N)
    inside = key < length
    k_tile = load_rows(k, start + key, k_row, inside, HEAD_DIM, BLOCK_D, EDGE)
    scores = product(q_tile, flip(k_tile), None) * rate
    key_times = None if times is None else load_masked(times + start + key, inside, EDGE)
    scores = add_bias(
        scores, query[:, None], key[None, :], query_times, key_times, 1, 0, head,
        time_table, buckets, position_table, entries, CAUSAL,
    )  # fmt: skip
    if EDGE:
        visible = inside[None, :]
        if CAUSAL:
            visible = visible & (key[None, :] <= query[:, None])
        scores = tl.where(visible, scores, float("-inf"))
    best = tl.maximum(top, tl.max(scores, 1))
    weights = exponential(scores - best[:, None], first // BLOCK_N, 0 if EDGE else FMA_EVERY)
    fade = tl.exp2(top - best)
    total = total * fade + tl.sum(weights, 1)
    if words is not None:
        weights = tl.where(keep(words[:, None], key[None, :], threshold), weights, 0.0)
    v_tile = load_rows(v, start + key, v_row, inside, HEAD_DIM, BLOCK_D, EDGE)
    mixed = product(weights.to(v_tile.dtype), v_tile, mixed * fade[:, None])
    return best, total, mixed


@triton.jit(
    do_not_specialize=["heads", "threshold", "buckets", "entries"],
)
def forward_long(
    q,
    k,
    v,
    out,
    log_sums,
    offsets,
    tasks,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    heads,
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
    """One program: BLOCK_M queries, a block or part of one, and one head; BLOCK_N keys at a time.

    BLOCK_N divides BLOCK_M, and BLOCK_M divides TASK_ROWS, the rows of a task.

    The online softmax of Milakov and Gimelshein 2018 (arXiv:1805.02867).
    """
    head = tl.program_id(0) % heads
    part = tl.program_id(0) // heads
    sequence, block = load_task(tasks, part // (TASK_ROWS // BLOCK_M))
    low = block * TASK_ROWS + part % (TASK_ROWS // BLOCK_M) * BLOCK_M
    start = tl.load(offsets + sequence)
    length = tl.load(offsets + sequence + 1) - start
    if low >= length:
        return
    query = low + tl.arange(0, BLOCK_M)
    rows = start + query
    inside = query < length
    q_tile = load_rows(q + head * q_head, rows, q_row, inside, HEAD_DIM, BLOCK_D, True)
    k += head * k_head
    v += head * v_head
    words = None if seed is None else query_words(seed, sequence, head, query)
    when = None if times is None else tl.load(times + rows, mask=inside, other=0)
    top = tl.full((BLOCK_M,), _LOWEST, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    # Keys before `clear` are seen by every query; those after it need a mask.
    clear = low if CAUSAL else length // BLOCK_N * BLOCK_N
    end = tl.minimum(low + BLOCK_M, length) if CAUSAL else length
    for first in range(0, clear, BLOCK_N):
        top, total, mixed = _absorb(
            q_tile, query, top, total, mixed, k, v, start, first, length, k_row, v_row, rate, words,
            threshold, head, when, time_table, times, buckets, position_table, entries, HEAD_DIM, BLOCK_D,
            CAUSAL, BLOCK_N, FMA_EVERY, False,
        )  # fmt: skip
    for first in range(clear, end, BLOCK_N):
        top, total, mixed = _absorb(
            q_tile, query, top, total, mixed, k, v, start, first, length, k_row, v_row, rate, words,
            threshold, head, when, time_table, times, buckets, position_table, entries, HEAD_DIM, BLOCK_D,
            CAUSAL, BLOCK_N, FMA_EVERY, True,
        )  # fmt: skip
    mixed *= (boost / total)[:, None]
    row_heads = rows.to(tl.int64) * heads + head
    tl.store(
        out + row_offsets(row_heads, HEAD_DIM, BLOCK_D),
        mixed.to(out.dtype.element_ty),
        mask=row_mask(inside, HEAD_DIM, BLOCK_D),
    )
    tl.store(log_sums + row_heads, top + tl.log2(total), mask=inside)
