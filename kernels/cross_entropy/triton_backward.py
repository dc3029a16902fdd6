# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Backward kernel of linear cross-entropy: the gradient of a block of items from all rows, in order.

A program owns a block of items, keeps its gradient in registers, and computes the transposed softmax tile
(items, rows) directly from loaded tiles: no product is transposed, nothing is added from two sides.

Legend: N rows, V items, `speed` = log2(e) / temperature: logits are in units of ln 2.
"""

import triton
import triton.language as tl

from recsys.kernels.cross_entropy.triton_powers import powers
from recsys.kernels.shared.triton_tiles import load_tile, products


@triton.jit
def _score_gradients(
    x,
    gain,
    item,
    target,
    kept,
    hit,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    POLYNOMIAL: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """The loss's derivative in a tile of logits, times 2^SHIFT; `hit`: whether a target lies in it."""
    d_scores = powers(x + SHIFT, BLOCK_V, BLOCK_N, POLYNOMIAL) * gain[None, :]
    if hit:
        own = kept * gain * (1 << SHIFT)
        d_scores -= tl.where(item[:, None] == target[None, :], own[None, :], 0.0)
    return d_scores


@triton.jit(do_not_specialize=["n_rows", "n_items", "length", "item_blocks"])
def item_gradients(
    hidden,
    item_weight,
    bias,
    targets,
    normalizers,
    gains,
    factor,
    whole_hidden,
    whole_gain,
    d_items,
    d_bias,
    n_rows,
    n_items,
    length,
    item_blocks,
    speed,
    kept,
    share,
    limit,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    POLYNOMIAL: tl.constexpr,
    SHIFT: tl.constexpr,
    FINAL: tl.constexpr,
    SKIP: tl.constexpr,
):
    """Sum (softmax - kept at the target) * gain * hidden over one part of `length` rows.

    gains (N,): row weights, at most 1 in size. With FINAL (one part) the results are finished here: minus
    share * whole_hidden, the part of label smoothing that all items take alike, times factor; otherwise
    d_items (part, V, D) and d_bias (part, V) take float32 sums, times 2^SHIFT. SHIFT and `limit` as in
    `split_softmax`. `bias` and `d_bias` are None together or not.
    """
    program = tl.program_id(0)
    block = program % item_blocks
    groups = tl.cdiv(D, BLOCK_D)
    part = program // item_blocks // groups
    group = program // item_blocks % groups
    first_item = block * BLOCK_V
    item = first_item + tl.arange(0, BLOCK_V)
    real = item < n_items
    if BLOCK_K >= D:
        w = load_tile(item_weight, item, real, 0, D, BLOCK_K)
    if bias is not None:
        offset = tl.load(bias + item, mask=real, other=0.0).to(tl.float32) * speed
        bias_sum = tl.zeros((BLOCK_V,), tl.float32)
    sums = tl.zeros((BLOCK_V, BLOCK_D), tl.float32)
    begin = part * length
    for start in range(begin, tl.minimum(begin + length, n_rows), BLOCK_N):
        row = start + tl.arange(0, BLOCK_N)
        inside = row < n_rows
        if BLOCK_K >= D:
            h = load_tile(hidden, row, inside, 0, D, BLOCK_K)
            z = tl.dot(w, tl.trans(h), input_precision="ieee")
        else:
            z = products(item_weight, item, real, hidden, row, inside, BLOCK_V, BLOCK_N, D, BLOCK_K)
        if BLOCK_K < D or BLOCK_D < D:
            h = load_tile(hidden, row, inside, group * BLOCK_D, D, BLOCK_D)
        target = tl.load(targets + row, mask=inside, other=-1)
        gain = tl.load(gains + row, mask=inside, other=0.0)
        normalizer = tl.load(normalizers + row, mask=inside, other=float("inf"))
        x = z * speed - normalizer[None, :]
        if bias is not None:
            x += offset[:, None]
        hit = tl.max(((target >= first_item) & (target < first_item + BLOCK_V)).to(tl.int32), 0) > 0
        if SKIP:
            largest = tl.max(tl.where(real[:, None], x, float("-inf")))
            needed = (hit | (largest >= limit)).to(tl.int32)
            hit = True
            # Once or not at all, written as a loop: Triton 3.7 fails on a product under `if` for sm_100, and
            # on a maximum taken in two steps.
            for _ in range(needed):
                d_scores = _score_gradients(
                    x, gain, item, target, kept, hit, BLOCK_N, BLOCK_V, POLYNOMIAL, SHIFT
                )
                if bias is not None:
                    bias_sum += tl.sum(d_scores, 1)
                sums = tl.dot(d_scores.to(h.dtype), h, sums, input_precision="ieee")
        else:
            d_scores = _score_gradients(x, gain, item, target, kept, hit, BLOCK_N, BLOCK_V, POLYNOMIAL, SHIFT)
            if bias is not None:
                bias_sum += tl.sum(d_scores, 1)
            sums = tl.dot(d_scores.to(h.dtype), h, sums, input_precision="ieee")
    column = group * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = real[:, None] & (column < D)[None, :]
    if FINAL:
        last = tl.load(factor)
        sums = sums * (1.0 / (1 << SHIFT))
        if whole_hidden is not None:
            whole = tl.load(whole_hidden + column, mask=column < D, other=0.0)
            sums -= share * whole[None, :]
        sums = sums * last
        if bias is not None:
            bias_sum = bias_sum * (1.0 / (1 << SHIFT))
            if whole_hidden is not None:
                bias_sum -= share * tl.load(whole_gain)
            bias_sum = bias_sum * last
    at = part * n_items.to(tl.int64) + item
    tl.store(d_items + at[:, None] * D + column[None, :], sums.to(d_items.dtype.element_ty), mask=mask)
    if bias is not None:
        tl.store(d_bias + at, bias_sum.to(d_bias.dtype.element_ty), mask=real & (group == 0))
