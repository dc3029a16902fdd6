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
def _slopes(
    x,
    gain,
    item,
    target,
    kept,
    hit,
    ROWS: tl.constexpr,
    ITEMS: tl.constexpr,
    POLYNOMIAL: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """The loss's derivative in a tile of logits, times 2^SHIFT; `hit`: whether a target lies in it."""
    slope = powers(x + SHIFT, ITEMS, ROWS, POLYNOMIAL) * gain[None, :]
    if hit:
        own = kept * gain * (1 << SHIFT)
        slope -= tl.where(item[:, None] == target[None, :], own[None, :], 0.0)
    return slope


@triton.jit(do_not_specialize=["rows", "items", "length", "item_blocks"])
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
    rows,
    items,
    length,
    item_blocks,
    speed,
    kept,
    share,
    limit,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    ITEMS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    POLYNOMIAL: tl.constexpr,
    SHIFT: tl.constexpr,
    FINAL: tl.constexpr,
    SKIP: tl.constexpr,
):
    """Sum (softmax - kept at the target) * gain * hidden over one piece of `length` rows.

    gains (N,): row weights, at most 1 in size. With FINAL (one piece) the results are finished here: minus
    share * whole_hidden, the part of label smoothing that all items take alike, times factor; otherwise
    d_items (piece, V, WIDTH) and d_bias (piece, V) take float32 sums, times 2^SHIFT. SHIFT and `limit` as in
    `split_softmax`. `bias` and `d_bias` are None together or not.
    """
    program = tl.program_id(0)
    block = program % item_blocks
    groups = tl.cdiv(WIDTH, COLUMNS)
    piece = program // item_blocks // groups
    group = program // item_blocks % groups
    first_item = block * ITEMS
    item = first_item + tl.arange(0, ITEMS)
    real = item < items
    if DEPTH >= WIDTH:
        w = load_tile(item_weight, item, real, 0, WIDTH, DEPTH)
    if bias is not None:
        offset = tl.load(bias + item, mask=real, other=0.0).to(tl.float32) * speed
        slope_sum = tl.zeros((ITEMS,), tl.float32)
    sums = tl.zeros((ITEMS, COLUMNS), tl.float32)
    begin = piece * length
    for start in range(begin, tl.minimum(begin + length, rows), ROWS):
        row = start + tl.arange(0, ROWS)
        inside = row < rows
        if DEPTH >= WIDTH:
            h = load_tile(hidden, row, inside, 0, WIDTH, DEPTH)
            z = tl.dot(w, tl.trans(h), input_precision="ieee")
        else:
            z = products(item_weight, item, real, hidden, row, inside, ITEMS, ROWS, WIDTH, DEPTH)
        if DEPTH < WIDTH or COLUMNS < WIDTH:
            h = load_tile(hidden, row, inside, group * COLUMNS, WIDTH, COLUMNS)
        target = tl.load(targets + row, mask=inside, other=-1)
        gain = tl.load(gains + row, mask=inside, other=0.0)
        normalizer = tl.load(normalizers + row, mask=inside, other=float("inf"))
        x = z * speed - normalizer[None, :]
        if bias is not None:
            x += offset[:, None]
        hit = tl.max(((target >= first_item) & (target < first_item + ITEMS)).to(tl.int32), 0) > 0
        if SKIP:
            largest = tl.max(tl.where(real[:, None], x, float("-inf")))
            needed = (hit | (largest >= limit)).to(tl.int32)
            hit = True
            # Once or not at all, written as a loop: Triton 3.7 fails on a product under `if` for sm_100, and
            # on a maximum taken in two steps.
            for _ in range(needed):
                slope = _slopes(x, gain, item, target, kept, hit, ROWS, ITEMS, POLYNOMIAL, SHIFT)
                if bias is not None:
                    slope_sum += tl.sum(slope, 1)
                sums = tl.dot(slope.to(h.dtype), h, sums, input_precision="ieee")
        else:
            slope = _slopes(x, gain, item, target, kept, hit, ROWS, ITEMS, POLYNOMIAL, SHIFT)
            if bias is not None:
                slope_sum += tl.sum(slope, 1)
            sums = tl.dot(slope.to(h.dtype), h, sums, input_precision="ieee")
    column = group * COLUMNS + tl.arange(0, COLUMNS)
    mask = real[:, None] & (column < WIDTH)[None, :]
    if FINAL:
        last = tl.load(factor)
        sums = sums * (1.0 / (1 << SHIFT))
        if whole_hidden is not None:
            whole = tl.load(whole_hidden + column, mask=column < WIDTH, other=0.0)
            sums -= share * whole[None, :]
        sums = sums * last
        if bias is not None:
            slope_sum = slope_sum * (1.0 / (1 << SHIFT))
            if whole_hidden is not None:
                slope_sum -= share * tl.load(whole_gain)
            slope_sum = slope_sum * last
    at = piece * items.to(tl.int64) + item
    tl.store(d_items + at[:, None] * WIDTH + column[None, :], sums.to(d_items.dtype.element_ty), mask=mask)
    if bias is not None:
        tl.store(d_bias + at, slope_sum.to(d_bias.dtype.element_ty), mask=real & (group == 0))
