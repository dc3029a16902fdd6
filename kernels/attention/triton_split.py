# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Attention's gradients on the GPU, for long sequences: one kernel over queries, one over keys.

Each program owns its rows of dq, or of dk and dv, so nothing is added by two programs: no atomics, no order.
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
    product,
    query_words,
    row_mask,
    row_places,
)


@triton.jit
def _query_slopes(
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
    HEAD: tl.constexpr,
    DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    EVERY: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Add the part of dq (without the factor scale) that KEYS keys from `first` on give.

    And their parts of the tables' gradients: `shares` by time bucket; by distance, what later keys still add
    to is `passed` on, the rest is stored or, where it has no entry of its own, added to `far` and `near`.
    """
    key = first + tl.arange(0, KEYS)
    inside = key < length
    k_tile = load_rows(k, start + key, k_row, inside, HEAD, DIM, EDGE)
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
    weights = exponential(scores, first // KEYS, 0 if EDGE else EVERY)
    v_tile = load_rows(v, start + key, v_row, inside, HEAD, DIM, EDGE)
    slopes = product(g_tile, flip(v_tile), None)
    if words is not None:
        slopes = tl.where(keep(words[:, None], key[None, :], threshold), slopes * boost, 0.0)
    slopes = weights * (slopes - mean[:, None])
    dq_tile = product(slopes.to(k_tile.dtype), k_tile, dq_tile)
    if time_row is not None:
        lowest, highest = bucket_range(query_times, key_times, query < length, inside, buckets)
        bucket = time_buckets(tl.expand_dims(query_times, 1), tl.expand_dims(key_times, 0), buckets)
        shares = sum_buckets(shares, slopes, bucket, lowest, highest)
    if position_row is not None:
        ahead, behind = sum_diagonals(slopes, tl.arange(0, KEYS), ROWS)
        passed += ahead
        lane = tl.arange(0, ROWS)
        done = lane >= ROWS - KEYS  # no later key is that far back
        store_diagonals(position_row, passed, lane + low - first, done, entries, CAUSAL)
        far_, near_ = sum_ends(slopes, query[:, None] - key[None, :], entries, CAUSAL)
        far += far_
        near += near_
        passed = pass_on(passed, behind, KEYS)
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
    HEAD: tl.constexpr,
    DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    EVERY: tl.constexpr,
):
    """One program: dq of ROWS queries, a block or part of one, from KEYS keys at a time.

    And the queries' mean slopes (grad . out), which `backward_keys` reads. KEYS divides ROWS.
    """
    head = tl.program_id(0) % heads
    part = tl.program_id(0) // heads
    task = tasks + 2 * (first + part // (BLOCK // ROWS))
    sequence = tl.load(task)
    low = tl.load(task + 1) * BLOCK + part % (BLOCK // ROWS) * ROWS
    start = tl.load(offsets + sequence)
    length = tl.load(offsets + sequence + 1) - start
    if low >= length:
        return
    query = low + tl.arange(0, ROWS)
    rows = start + query
    inside = query < length
    places = rows.to(tl.int64) * heads + head
    g_tile = load_rows(grad + head * grad_head, rows, grad_row, inside, HEAD, DIM, True)
    out_tile = load_rows(out, places, HEAD, inside, HEAD, DIM, True)
    mean = tl.sum(g_tile.to(tl.float32) * out_tile.to(tl.float32), 1)
    tl.store(means + places, mean, mask=inside)
    log_sum = tl.load(log_sums + places, mask=inside, other=float("inf"))
    q_tile = load_rows(q + head * q_head, rows, q_row, inside, HEAD, DIM, True)
    k += head * k_head
    v += head * v_head
    words = None if seed is None else query_words(seed, sequence, head, query)
    when = None if times is None else tl.load(times + rows, mask=inside, other=0)
    program = tl.program_id(0).to(tl.int64)
    time_row = None if time_parts is None else time_parts + program * buckets
    position_row = None if position_parts is None else position_parts + program * entries
    shares = tl.zeros((BUCKETS,), tl.float32)
    passed = tl.zeros((ROWS,), tl.float32)
    far = 0.0
    near = 0.0
    dq_tile = tl.zeros((ROWS, DIM), tl.float32)
    clear = low if CAUSAL else length // KEYS * KEYS
    end = tl.minimum(low + ROWS, length) if CAUSAL else length
    for key in range(0, clear, KEYS):
        dq_tile, shares, passed, far, near = _query_slopes(
            q_tile, g_tile, low, query, log_sum, mean, dq_tile, shares, passed, far, near, k, v, start, key,
            length, k_row, v_row, rate, words, threshold, boost, head, when, time_row, position_row,
            time_table, times, buckets, position_table, entries, HEAD, DIM, CAUSAL, ROWS, KEYS, EVERY,
            False,
        )  # fmt: skip
    for key in range(clear, end, KEYS):
        dq_tile, shares, passed, far, near = _query_slopes(
            q_tile, g_tile, low, query, log_sum, mean, dq_tile, shares, passed, far, near, k, v, start, key,
            length, k_row, v_row, rate, words, threshold, boost, head, when, time_row, position_row,
            time_table, times, buckets, position_table, entries, HEAD, DIM, CAUSAL, ROWS, KEYS, EVERY, True,
        )  # fmt: skip
    dq_tile *= scale
    tl.store(
        dq + row_places(places, HEAD, DIM), dq_tile.to(dq.dtype.element_ty), mask=row_mask(inside, HEAD, DIM)
    )
    if time_row is not None:
        lane = tl.arange(0, BUCKETS)
        tl.store(time_row + lane, shares, mask=lane < buckets)
    if position_row is not None:
        lane = tl.arange(0, ROWS)
        # `passed` starts at the key after the last block of keys.
        distance = lane + low - tl.cdiv(end, KEYS) * KEYS
        store_diagonals(position_row, passed, distance, lane >= 0, entries, CAUSAL)
        store_ends(position_row, far, near, entries, CAUSAL)


@triton.jit
def _key_slopes(
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
    HEAD: tl.constexpr,
    DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    QUERIES: tl.constexpr,
    EVERY: tl.constexpr,
    EDGE: tl.constexpr,
    DIAGONAL: tl.constexpr,
):
    """Add the parts of dk and dv that QUERIES queries from `first` on give; scores lie keys x queries.

    A query outside the sequence has an infinite logarithm and so weighs 0; a key outside is not stored.
    """
    query = first + tl.arange(0, QUERIES)
    inside = query < length
    rows = start + query
    places = rows.to(tl.int64) * heads + head
    q_tile = load_rows(q, rows, q_row, inside, HEAD, DIM, EDGE)
    g_tile = load_rows(grad, rows, grad_row, inside, HEAD, DIM, EDGE)
    if EDGE:
        log_sum = tl.load(log_sums + places, mask=inside, other=float("inf"))
        mean = tl.load(means + places, mask=inside, other=0.0)
    else:
        log_sum = tl.load(log_sums + places)
        mean = tl.load(means + places)
    scores = product(k_tile, flip(q_tile), None) * rate
    query_times = None if times is None else load_masked(times + rows, inside, EDGE)
    scores = add_bias(
        scores, query[None, :], key[:, None], query_times, key_times, 0, 1, head,
        time_table, buckets, position_table, entries, CAUSAL,
    )  # fmt: skip
    scores -= log_sum[None, :]
    if DIAGONAL:
        scores = tl.where(key[:, None] <= query[None, :], scores, float("-inf"))
    weights = exponential(scores, first // QUERIES, 0 if EDGE else EVERY)
    slopes = product(v_tile, flip(g_tile), None)
    kept = weights
    if seed is not None:
        words = query_words(seed, sequence, head, query)
        kept_ = keep(words[None, :], key[:, None], threshold)
        kept = tl.where(kept_, weights, 0.0)
        slopes = tl.where(kept_, slopes * boost, 0.0)
    dv_tile = product(kept.to(g_tile.dtype), g_tile, dv_tile)
    slopes = weights * (slopes - mean[None, :])
    dk_tile = product(slopes.to(q_tile.dtype), q_tile, dk_tile)
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
    HEAD: tl.constexpr,
    DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    QUERIES: tl.constexpr,
    EVERY: tl.constexpr,
):
    """One program: dk and dv of ROWS keys, a block or part of one, from QUERIES queries at a time.

    QUERIES divides ROWS, and ROWS divides BLOCK, the rows of a task.
    """
    head = tl.program_id(0) % heads
    part = tl.program_id(0) // heads
    task = tasks + 2 * (part // (BLOCK // ROWS))
    sequence = tl.load(task)
    block = tl.load(task + 1)
    start = tl.load(offsets + sequence)
    length = tl.load(offsets + sequence + 1) - start
    if CAUSAL:  # the first keys have the most queries: take them when the list says last block
        block = (length - 1) // BLOCK - block
    low = block * BLOCK + part % (BLOCK // ROWS) * ROWS
    if low >= length:
        return
    key = low + tl.arange(0, ROWS)
    inside = key < length
    rows = start + key
    k_tile = load_rows(k + head * k_head, rows, k_row, inside, HEAD, DIM, True)
    v_tile = load_rows(v + head * v_head, rows, v_row, inside, HEAD, DIM, True)
    when = None if times is None else tl.load(times + rows, mask=inside, other=0)
    grad += head * grad_head
    q += head * q_head
    dk_tile = tl.zeros((ROWS, DIM), tl.float32)
    dv_tile = tl.zeros((ROWS, DIM), tl.float32)
    clear = 0
    if CAUSAL:
        clear = tl.minimum(low + ROWS, length)
        for first in range(low, clear, QUERIES):
            dk_tile, dv_tile = _key_slopes(
                k_tile, v_tile, key, dk_tile, dv_tile, grad, q, log_sums, means, start, first, length,
                grad_row, q_row, heads, rate, seed, sequence, head, threshold, boost, when, time_table,
                times, buckets, position_table, entries, HEAD, DIM, CAUSAL, QUERIES, EVERY, True, True,
            )  # fmt: skip
    whole = length // QUERIES * QUERIES
    for first in range(clear, whole, QUERIES):
        dk_tile, dv_tile = _key_slopes(
            k_tile, v_tile, key, dk_tile, dv_tile, grad, q, log_sums, means, start, first, length, grad_row,
            q_row, heads, rate, seed, sequence, head, threshold, boost, when, time_table, times, buckets,
            position_table, entries, HEAD, DIM, CAUSAL, QUERIES, EVERY, False, False,
        )  # fmt: skip
    for first in range(tl.maximum(clear, whole), length, QUERIES):
        dk_tile, dv_tile = _key_slopes(
            k_tile, v_tile, key, dk_tile, dv_tile, grad, q, log_sums, means, start, first, length, grad_row,
            q_row, heads, rate, seed, sequence, head, threshold, boost, when, time_table, times, buckets,
            position_table, entries, HEAD, DIM, CAUSAL, QUERIES, EVERY, True, False,
        )  # fmt: skip
    places = rows.to(tl.int64) * heads + head
    at = row_places(places, HEAD, DIM)
    mask = row_mask(inside, HEAD, DIM)
    dk_tile *= scale
    dv_tile *= boost
    tl.store(dk + at, dk_tile.to(dk.dtype.element_ty), mask=mask)
    tl.store(dv + at, dv_tile.to(dv.dtype.element_ty), mask=mask)
