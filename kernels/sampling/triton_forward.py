# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Negative draws on the GPU: the words of `reference`, a tile of rows and draws to a program."""

import triton
import triton.language as tl

from recsys.kernels.shared.triton_random_words import row_keys, scaled, word_of

__all__ = ["draw_kernel"]


@triton.jit
def _others(words, V, avoided):
    """An item of the n - 1 that are not `avoided`."""
    place = scaled(words, V - 1)[0]
    return place + (place >= avoided).to(tl.int64)


@triton.jit
def _by_table(words, V, threshold, alias, inside):
    slot, rest = scaled(words, V)
    kept = rest < tl.load(threshold + slot, mask=inside, other=0)
    return tl.where(kept, slot, tl.load(alias + slot, mask=inside & ~kept, other=0))


@triton.jit(do_not_specialize=["N", "K", "V", "high", "low", "draw_blocks"])
def draw_kernel(
    targets,
    threshold,
    alias,
    out,
    N,
    K,
    V,
    high,
    low,
    draw_blocks,
    TRIES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Draw `K` items of n for each row, (N, count) int64.

    targets (N,) int64 are avoided, None avoids nothing; threshold and alias (n,) int64, None is uniform.
    """
    row = tl.program_id(0) // draw_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    draw = tl.program_id(0) % draw_blocks * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (row < N)[:, None] & (draw < K)[None, :]
    keys = row_keys(high, low, row.to(tl.int64))[:, None]
    first = (draw.to(tl.int64) * (TRIES + 1))[None, :]
    items = tl.full((BLOCK_N, BLOCK_K), 0, tl.int64) + V
    words = word_of(keys, first)
    if targets is None:
        if threshold is None:
            found = scaled(words, items)[0]
        else:
            found = _by_table(words, items, threshold, alias, inside)
    else:
        avoided = tl.load(targets + row, mask=row < N, other=0)[:, None]
        if threshold is None:
            found = _others(words, items, avoided)
        else:
            found = _by_table(words, items, threshold, alias, inside)
            for attempt in tl.static_range(1, TRIES):
                again = inside & (found == avoided)
                other = _by_table(word_of(keys, first + attempt), items, threshold, alias, again)
                found = tl.where(again, other, found)
            last = _others(word_of(keys, first + TRIES), items, avoided)
            found = tl.where(found == avoided, last, found)
    place = row.to(tl.int64)[:, None] * K + draw[None, :]
    tl.store(out + place, found, mask=inside)
