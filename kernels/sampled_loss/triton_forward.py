# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Sampled losses on the GPU, a program to a row: its loss, and the gradients of its scores in place.

Legend: N rows, K negatives, R rows per item (1, or hash functions), d width.
"""

import triton
import triton.language as tl

from recsys.kernels.sampled_loss import form
from recsys.kernels.shared.triton_math import LOG2_E, sigmoid, softplus

__all__ = ["block_kernel", "rows_kernel"]

SOFTMAX = tl.constexpr(form.SOFTMAX)
BPR = tl.constexpr(form.BPR)


@triton.jit
def _scores_of(scores, ids, log_q, first, K, target, BLOCK_K: tl.constexpr):
    """A tile of a row's scores, as they are and corrected by log_q, and which of them count (no hits)."""
    j = first + tl.arange(0, BLOCK_K)
    inside = j < K
    value = tl.load(scores + j, mask=inside, other=0.0)
    left = inside & (tl.load(ids + j, mask=inside, other=-1) != target)
    corrected = value
    if log_q is not None:
        corrected -= tl.load(log_q + j, mask=inside, other=0.0)
    return j, inside, left, value, corrected


@triton.jit
def _row_score_gradients(
    scores,
    ids,
    log_q,
    positive,
    own_q,
    target,
    factor,
    K,
    smoothing,
    beta,
    KIND: tl.constexpr,
    NEED_GRADIENTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return a row's loss and factor * its target's gradient; if NEED_GRADIENTS, its scores become theirs.

    `scores`, `ids`, `log_q` point at the row's first negative.
    """
    if KIND == SOFTMAX:
        own = positive - own_q
        tops = tl.zeros((BLOCK_K,), tl.float32) + own
        sums = tl.zeros((BLOCK_K,), tl.float32)
        plain = tl.zeros((BLOCK_K,), tl.float32)
        many = tl.zeros((BLOCK_K,), tl.float32)
        for first in range(0, K, BLOCK_K):
            j, inside, left, value, corrected = _scores_of(scores, ids, log_q, first, K, target, BLOCK_K)
            corrected = tl.where(left, corrected, float("-inf"))
            raised = tl.maximum(tops, corrected)
            sums = sums * tl.exp2((tops - raised) * LOG2_E) + tl.exp2((corrected - raised) * LOG2_E)
            tops = raised
            plain += tl.where(left, value, 0.0)
            many += left.to(tl.float32)
        top = tl.max(tops, 0)
        mine = tl.exp2((own - top) * LOG2_E)
        total = tl.sum(sums * tl.exp2((tops - top) * LOG2_E), 0) + mine
        loss = tl.log(total) + (top - own)
        share = factor / total
        d_positive = share * mine - factor
        number = tl.sum(many, 0)
        spread = tl.where(number > 0.0, smoothing, 0.0)
        mean = tl.sum(plain, 0) / tl.maximum(number, 1.0)
        loss += spread * (own - mean)
        d_positive += factor * spread
        part = factor * spread / tl.maximum(number, 1.0)
        if NEED_GRADIENTS:
            for first in range(0, K, BLOCK_K):
                j, inside, left, value, corrected = _scores_of(scores, ids, log_q, first, K, target, BLOCK_K)
                d_score = share * tl.exp2((corrected - top) * LOG2_E) - part
                tl.store(scores + j, tl.where(left, d_score, 0.0), mask=inside)
    else:
        one = 1.0 / (K if KIND == BPR else K + 1)
        losses = tl.zeros((BLOCK_K,), tl.float32)
        d_sums = tl.zeros((BLOCK_K,), tl.float32)
        for first in range(0, K, BLOCK_K):
            j, inside, left, value, corrected = _scores_of(scores, ids, None, first, K, target, BLOCK_K)
            if KIND == BPR:
                value -= positive
            losses += tl.where(left, softplus(value), 0.0)
            d_score = tl.where(left, sigmoid(value), 0.0)
            d_sums += d_score
            if NEED_GRADIENTS:
                tl.store(scores + j, factor * one * d_score, mask=inside)
        loss = tl.sum(losses, 0)
        if KIND == BPR:
            d_positive = -factor * one * tl.sum(d_sums, 0)
        else:
            loss += beta * softplus(-positive)
            d_positive = -factor * one * beta * sigmoid(-positive)
        loss *= one
    return loss, d_positive


@triton.jit(do_not_specialize=["K", "log_q_stride"])
def rows_kernel(
    hidden,
    table,
    rows,
    targets,
    negatives,
    log_q,
    target_log_q,
    scale,
    losses,
    coefficients,
    d_hidden,
    K,
    log_q_stride,
    D,
    rate,
    smoothing,
    beta,
    R: tl.constexpr,
    KIND: tl.constexpr,
    NEED_GRADIENTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Compute the loss of a row whose negatives are its own, and if asked for its gradients.

    hidden (N, d), table (., d) float32; rows (N, 1 + K, R) int64, the target first; negatives (N, K) int64;
    coefficients (N, 1 + K): scratch for the scores, then the gradients before the temperature.
    """
    row = tl.program_id(0).to(tl.int64)
    o_negative = tl.arange(0, BLOCK_K)
    o_depth = tl.arange(0, BLOCK_D)
    columns = K + 1
    coefficients += row * columns
    rows += row * columns * R
    for first in range(0, columns, BLOCK_K):
        m_column = first + o_negative < columns
        total = tl.zeros((BLOCK_K,), tl.float32)
        for begin in range(0, D, BLOCK_D):
            m_depth = begin + o_depth < D
            h = tl.load(hidden + row * D + begin + o_depth, mask=m_depth, other=0.0)
            for part in tl.static_range(R):
                there = tl.load(rows + (first + o_negative) * R + part, mask=m_column, other=0)
                place = there[:, None] * D + (begin + o_depth)[None, :]
                tile = tl.load(table + place, mask=m_column[:, None] & m_depth[None, :], other=0.0)
                total += tl.sum(tile * h[None, :], 1)
        tl.store(coefficients + first + o_negative, total * rate, mask=m_column)
    tl.debug_barrier()  # scores are written before any thread reads them
    target = tl.load(targets + row)
    own_q = 0.0
    if target_log_q is not None:
        own_q = tl.load(target_log_q + row)
    if log_q is not None:
        log_q += row * log_q_stride
    loss, d_positive = _row_score_gradients(
        coefficients + 1,
        negatives + row * K,
        log_q,
        tl.load(coefficients),
        own_q,
        target,
        tl.load(scale + row) * rate,
        K,
        smoothing,
        beta,
        KIND,
        NEED_GRADIENTS,
        BLOCK_K,
    )
    tl.store(losses + row, loss)
    if NEED_GRADIENTS:
        tl.debug_barrier()  # the target's score has been read
        tl.store(coefficients, d_positive)
        tl.debug_barrier()  # gradients are written before any thread reads them
        for begin in range(0, D, BLOCK_D):
            m_depth = begin + o_depth < D
            sums = tl.zeros((BLOCK_D,), tl.float32)
            for first in range(0, columns, BLOCK_K):
                m_column = first + o_negative < columns
                d_score = tl.load(coefficients + first + o_negative, mask=m_column, other=0.0)
                for part in tl.static_range(R):
                    there = tl.load(rows + (first + o_negative) * R + part, mask=m_column, other=0)
                    place = there[:, None] * D + (begin + o_depth)[None, :]
                    tile = tl.load(table + place, mask=m_column[:, None] & m_depth[None, :], other=0.0)
                    sums += tl.sum(tile * d_score[:, None], 0)
            tl.store(d_hidden + row * D + begin + o_depth, sums, mask=m_depth)


@triton.jit(do_not_specialize=["first_row", "K"])
def block_kernel(
    positives,
    scores,
    targets,
    negatives,
    log_q,
    target_log_q,
    scale,
    losses,
    d_positives,
    first_row,
    K,
    rate,
    smoothing,
    beta,
    KIND: tl.constexpr,
    NEED_GRADIENTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Turn a row of scores (., K) against shared negatives into gradients; program 0 is row `first_row`."""
    place = tl.program_id(0).to(tl.int64)
    row = first_row + place
    own_q = 0.0
    if target_log_q is not None:
        own_q = tl.load(target_log_q + row)
    loss, d_positive = _row_score_gradients(
        scores + place * K,
        negatives,
        log_q,
        tl.load(positives + place),
        own_q,
        tl.load(targets + row),
        tl.load(scale + row) * rate,
        K,
        smoothing,
        beta,
        KIND,
        NEED_GRADIENTS,
        BLOCK_K,
    )
    tl.store(losses + row, loss)
    tl.store(d_positives + place, d_positive)
