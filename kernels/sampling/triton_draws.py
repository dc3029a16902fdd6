# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Negative draws on the GPU: the words of `reference`, a tile of rows and draws to a program."""

import triton
import triton.language as tl

from recsys.kernels.shared.triton_random_words import row_keys, scaled, word_of

__all__ = ["draw_kernel"]


@triton.jit
def _others(words, n, avoided):
    """An item of the n - 1 that are not `avoided`."""
    place = scaled(words, n - 1)[0]
    return place + (place >= avoided).to(tl.int64)


@triton.jit
def _by_table(words, n, threshold, alias, wanted):
    slot, rest = scaled(words, n)
    kept = rest < tl.load(threshold + slot, mask=wanted, other=0)
    return tl.where(kept, slot, tl.load(alias + slot, mask=wanted & ~kept, other=0))


@triton.jit(do_not_specialize=["n_rows", "count", "n", "high", "low", "pieces"])
def draw_kernel(
    targets,
    threshold,
    alias,
    out,
    n_rows,
    count,
    n,
    high,
    low,
    pieces,
    TRIES: tl.constexpr,
    ROWS: tl.constexpr,
    DRAWS: tl.constexpr,
):
    """Draw `count` items of n for each row, (n_rows, count) int64.

    targets (n_rows,) int64 are avoided, None avoids nothing; threshold and alias (n,) int64, None is uniform.
    """
    row = tl.program_id(0) // pieces * ROWS + tl.arange(0, ROWS)
    draw = tl.program_id(0) % pieces * DRAWS + tl.arange(0, DRAWS)
    inside = (row < n_rows)[:, None] & (draw < count)[None, :]
    keys = row_keys(high, low, row.to(tl.int64))[:, None]
    first = (draw.to(tl.int64) * (TRIES + 1))[None, :]
    items = tl.full((ROWS, DRAWS), 0, tl.int64) + n
    words = word_of(keys, first)
    if targets is None:
        if threshold is None:
            found = scaled(words, items)[0]
        else:
            found = _by_table(words, items, threshold, alias, inside)
    else:
        avoided = tl.load(targets + row, mask=row < n_rows, other=0)[:, None]
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
    place = row.to(tl.int64)[:, None] * count + draw[None, :]
    tl.store(out + place, found, mask=inside)
