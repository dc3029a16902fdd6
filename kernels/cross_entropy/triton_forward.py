# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Forward kernels of linear cross-entropy: softmax over splits of the catalog, then over the splits.

A program walks one split of the items for one block of rows with a running maximum, as attention walks keys:
exponentials that are there for the loss also weigh the item vectors, so that the gradient of the hidden rows
costs no exponential of its own. Splits are cut by V alone and merged in order: a row has the same bits in any
batch.

Legend: N rows, V items, `speed` = log2(e) / temperature: logits are kept in units of ln 2.
"""

import triton
import triton.language as tl

from recsys.kernels.cross_entropy.triton_powers import powers
from recsys.kernels.shared.triton_math import LN_2
from recsys.kernels.shared.triton_tiles import load_tile, products

NEVER = tl.constexpr(2**31 - 1)


@triton.jit
def finite_or_zero(top):
    """A maximum to subtract: 0 where there is none, as -inf minus -inf is not a number."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit(do_not_specialize=["n_rows", "n_items", "length", "row_blocks"])
def split_softmax(
    hidden,
    item_weight,
    bias,
    targets,
    tops,
    sums,
    goals,
    sections,
    n_rows,
    n_items,
    length,
    row_blocks,
    speed,
    limit,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    POLYNOMIAL: tl.constexpr,
    SHIFT: tl.constexpr,
    GRADIENT: tl.constexpr,
    SKIP: tl.constexpr,
):
    """Sum exponentials (and exponentials times item vectors) of one split for one block of rows.

    Writes, per (split, row): tops, the largest logit; sums, of 2^(logit - top + SHIFT); sections (split, row,
    D), of the same times the item's vector. Per row: goals, the target's logit, by the split that holds
    it. SHIFT keeps small float16 factors out of its subnormal range. `limit`: with SKIP, a tile whose
    softmax values all lie below 2^limit is left out of the sections.
    """
    program = tl.program_id(0)
    row_block = program % row_blocks
    groups = tl.cdiv(D, BLOCK_D) if GRADIENT else 1
    split = program // row_blocks // groups
    group = program // row_blocks % groups
    row = row_block * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = row < n_rows
    target = tl.load(targets + row, mask=inside, other=-1)
    known = (target >= 0) & (target < n_items)
    target = tl.where(known, target, -1).to(tl.int32)
    home = tl.where(known, target // BLOCK_V * BLOCK_V, NEVER)  # first item of the target's tile
    begin = split * length
    end = tl.minimum(begin + length, n_items)
    upcoming = tl.min(tl.where(home >= begin, home, NEVER), 0)
    goal = tl.zeros((BLOCK_N,), tl.float32)
    top = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    if GRADIENT:
        section = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    if BLOCK_K >= D:
        h = load_tile(hidden, row, inside, 0, D, BLOCK_K)
    local = tl.arange(0, BLOCK_V)
    for start in range(begin, end, BLOCK_V):
        item = start + local
        real = item < n_items
        if BLOCK_K >= D:
            w = load_tile(item_weight, item, real, 0, D, BLOCK_K)
            z = tl.dot(h, tl.trans(w), input_precision="ieee")
        else:
            z = products(hidden, row, inside, item_weight, item, real, BLOCK_N, BLOCK_V, D, BLOCK_K)
        x = z * speed
        if bias is not None:
            x += (tl.load(bias + item, mask=real, other=0.0).to(tl.float32) * speed)[None, :]
        if start + BLOCK_V > n_items:
            x = tl.where((local < n_items - start)[None, :], x, float("-inf"))
        if start == upcoming:
            match = (target - start)[:, None] == local[None, :]
            goal = tl.where(home == start, tl.sum(tl.where(match, x, 0.0), 1), goal)
            upcoming = tl.min(tl.where(home > start, home, NEVER), 0)
        tile_top = tl.max(x, 1)
        new_top = tl.maximum(top, tile_top)
        reference = finite_or_zero(new_top)
        power = powers(x - (reference - SHIFT)[:, None], BLOCK_N, BLOCK_V, POLYNOMIAL)
        fall = tl.exp2(top - reference)
        total = total * fall + tl.sum(power, 1)
        top = new_top
        if GRADIENT:
            if BLOCK_K < D or BLOCK_D < D:
                w = load_tile(item_weight, item, real, group * BLOCK_D, D, BLOCK_D)
            section = section * fall[:, None]
            if SKIP:
                # The catalog so far bounds a softmax value from above: less is skipped than could be.
                share = tl.where(inside, tile_top - (reference - SHIFT) - tl.log2(total), float("-inf"))
                # Once or not at all, written as a loop: Triton 3.7 fails on a product under `if` for sm_100.
                for _ in range((tl.max(share, 0) >= limit).to(tl.int32)):
                    section = tl.dot(power.to(w.dtype), w, section, input_precision="ieee")
            else:
                section = tl.dot(power.to(w.dtype), w, section, input_precision="ieee")
    at = split * n_rows.to(tl.int64) + row
    if group == 0:
        tl.store(tops + at, top, mask=inside)
        tl.store(sums + at, total, mask=inside)
        tl.store(goals + row, goal, mask=inside & (home >= begin) & (home < end))
    if GRADIENT:
        column = group * BLOCK_D + tl.arange(0, BLOCK_D)
        tl.store(
            sections + at[:, None] * D + column[None, :],
            section,
            mask=inside[:, None] & (column < D)[None, :],
        )


@triton.jit(do_not_specialize=["n_rows", "n_items", "splits"])
def merge_splits(
    hidden,
    item_weight,
    targets,
    tops,
    sums,
    goals,
    sections,
    mean_item,
    mean_bias,
    losses,
    normalizers,
    gradients,
    n_rows,
    n_items,
    splits,
    speed,
    rate,
    smoothing,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SHIFT: tl.constexpr,
    GRADIENT: tl.constexpr,
):
    """Merge a block of rows' splits in order: losses, log2 of the softmax's denominators, gradients.

    gradients (N, D): the loss's gradient in the hidden row. Label smoothing enters by the mean item vector:
    loss = lse - z_t + eps (z_t - mean z), mean z = h . mean w + mean b. A row whose target is in no split
    has NaN as its goal.
    """
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = row < n_rows
    stride = n_rows.to(tl.int64)
    top = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    for split in range(splits):
        at = split * stride + row
        top = tl.maximum(top, tl.load(tops + at, mask=inside, other=0.0))
    reference = finite_or_zero(top)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for split in range(splits):
        at = split * stride + row
        fall = tl.exp2(tl.load(tops + at, mask=inside, other=0.0) - reference)
        total += tl.load(sums + at, mask=inside, other=1.0) * fall
    goal = tl.load(goals + row, mask=inside, other=0.0)
    normalizer = reference - SHIFT + tl.log2(total)
    loss = normalizer - goal
    if mean_item is not None:
        mean = tl.zeros((BLOCK_N,), tl.float32)
        if mean_bias is not None:
            mean += tl.load(mean_bias)
        for first in range(0, D, BLOCK_D):
            column = first + tl.arange(0, BLOCK_D)
            h = load_tile(hidden, row, inside, first, D, BLOCK_D).to(tl.float32)
            w = tl.load(mean_item + column, mask=column < D, other=0.0)
            mean += tl.sum(h * w[None, :], 1)
        loss += smoothing * (goal - mean * speed)
    tl.store(losses + row, loss * LN_2, mask=inside)
    tl.store(normalizers + row, normalizer, mask=inside)
    if GRADIENT:
        target = tl.load(targets + row, mask=inside, other=-1)
        known = (target >= 0) & (target < n_items)
        target = tl.where(known, target, 0)
        for first in range(0, D, BLOCK_D):
            column = first + tl.arange(0, BLOCK_D)
            mask = inside[:, None] & (column < D)[None, :]
            gradient = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
            for split in range(splits):
                at = split * stride + row
                fall = tl.exp2(tl.load(tops + at, mask=inside, other=0.0) - reference)
                section = tl.load(sections + at[:, None] * D + column[None, :], mask=mask, other=0.0)
                gradient += section * fall[:, None]
            gradient = gradient / total[:, None]
            own = load_tile(item_weight, target, known, first, D, BLOCK_D).to(tl.float32)
            gradient -= (1.0 - smoothing) * own
            if mean_item is not None:
                w = tl.load(mean_item + column, mask=column < D, other=0.0)
                gradient -= smoothing * w[None, :]
            tl.store(gradients + row.to(tl.int64)[:, None] * D + column[None, :], gradient * rate, mask=mask)
