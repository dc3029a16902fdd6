# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Attention's gradients on the GPU, for sequences of up to 64 events: one program owns dq, dk and dv.

Scores lie transposed, keys x queries, so that no product needs the transpose of a product: dv and dk are
(keys x queries) times loaded rows, and dq comes out transposed, loaded keys times (keys x queries).
"""

import triton
import triton.language as tl

from recsys.kernels.attention.triton_bias import (
    BUCKETS,
    add_bias,
    bucket_range,
    store_diagonals,
    store_ends,
    sum_buckets,
    sum_diagonals,
    sum_ends,
    time_buckets,
)
from recsys.kernels.attention.triton_tile import (
    flip,
    keep,
    load_rows,
    load_sequences,
    product,
    query_words,
    row_mask,
    row_offsets,
)


@triton.jit(
    do_not_specialize=["first", "last", "heads", "threshold", "buckets", "entries"],
)
def backward_short(
    grad,
    q,
    k,
    v,
    log_sums,
    dq,
    dk,
    dv,
    time_parts,
    position_parts,
    offsets,
    tasks,
    first,
    last,
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
    BLOCK_L: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One program: GROUP sequences of at most BLOCK_L events, one head. GROUP 1 works on flat tiles.

    All weights of a query are here, so the mean of its d_scores comes from them, not from the output.
    """
    head = tl.program_id(0) % heads
    slot = first + tl.program_id(0) // heads * GROUP
    index = tl.arange(0, BLOCK_L)
    if GROUP > 1:
        slot += tl.arange(0, GROUP)[:, None]
        index = index[None, :]
    used = slot < last
    sequence = load_sequences(tasks, slot, used)
    start = tl.load(offsets + sequence, mask=used, other=0)
    length = tl.load(offsets + sequence + 1, mask=used, other=0) - start
    inside = index < length
    rows = start + index
    k_tile = load_rows(k + head * k_head, rows, k_row, inside, HEAD_DIM, BLOCK_D, True)
    q_tile = load_rows(q + head * q_head, rows, q_row, inside, HEAD_DIM, BLOCK_D, True)
    row_heads = rows.to(tl.int64) * heads + head
    log_sum = tl.load(log_sums + row_heads, mask=inside, other=float("inf"))  # queries outside weigh 0
    key, query = tl.expand_dims(index, -1), tl.expand_dims(index, -2)
    scores = product(k_tile, flip(q_tile), None) * rate
    when = None if times is None else tl.load(times + rows, mask=inside, other=0)
    scores = add_bias(
        scores, query, key, when, when, -2, -1, head, time_table, buckets, position_table,
        entries, CAUSAL,
    )  # fmt: skip
    visible = tl.expand_dims(inside, -1)
    if CAUSAL:
        visible = visible & (key <= query)
    weights = tl.exp2(tl.where(visible, scores - tl.expand_dims(log_sum, -2), float("-inf")))
    v_tile = load_rows(v + head * v_head, rows, v_row, inside, HEAD_DIM, BLOCK_D, True)
    g_tile = load_rows(grad + head * grad_head, rows, grad_row, inside, HEAD_DIM, BLOCK_D, True)
    d_scores = product(v_tile, flip(g_tile), None)
    kept = weights
    if seed is not None:
        words = query_words(seed, sequence, head, index)
        kept_ = keep(tl.expand_dims(words, -2), key, threshold)
        kept = tl.where(kept_, weights, 0.0)
        d_scores = tl.where(kept_, d_scores * boost, 0.0)
    dv_tile = product(kept.to(g_tile.dtype), g_tile, None) * boost
    at = row_offsets(row_heads, HEAD_DIM, BLOCK_D)
    mask = row_mask(inside, HEAD_DIM, BLOCK_D)
    tl.store(dv + at, dv_tile.to(dv.dtype.element_ty), mask=mask)
    mean = tl.sum(weights * d_scores, len(weights.shape) - 2)
    d_scores = weights * (d_scores - tl.expand_dims(mean, -2))
    narrow = d_scores.to(q_tile.dtype)
    dk_tile = product(narrow, q_tile, None) * scale
    tl.store(dk + at, dk_tile.to(dk.dtype.element_ty), mask=mask)
    dq_tile = flip(product(flip(k_tile), narrow, None) * scale)
    tl.store(dq + at, dq_tile.to(dq.dtype.element_ty), mask=mask)
    if time_parts is not None:
        lowest, highest = bucket_range(when, when, inside, inside, buckets)
        bucket = time_buckets(tl.expand_dims(when, -2), tl.expand_dims(when, -1), buckets)
        shares = sum_buckets(tl.zeros((BUCKETS,), tl.float32), d_scores, bucket, lowest, highest)
        lanes = tl.arange(0, BUCKETS)
        row = time_parts + tl.program_id(0).to(tl.int64) * buckets
        tl.store(row + lanes, shares, mask=lanes < buckets)
    if position_parts is not None:
        if GROUP > 1:  # the squares of all sequences side by side: queries x (sequence, key)
            square = tl.reshape(tl.permute(d_scores, (2, 0, 1)), (BLOCK_L, GROUP * BLOCK_L))
        else:
            square = flip(d_scores)
        ahead, behind = sum_diagonals(square, tl.arange(0, GROUP * BLOCK_L) % BLOCK_L, BLOCK_L)
        row = position_parts + tl.program_id(0).to(tl.int64) * entries
        lane = tl.arange(0, BLOCK_L)
        store_diagonals(row, ahead, lane, lane >= 0, entries, CAUSAL)
        store_diagonals(row, behind, lane - BLOCK_L, lane >= 0, entries, CAUSAL)
        far, near = sum_ends(d_scores, query - key, entries, CAUSAL)
        store_ends(row, far, near, entries, CAUSAL)
