"""Products of bfloat16 cross-entropy by matrix tiles: a block's logits, and what they weigh.

Legend: N rows, V items, d width (a multiple of 32); rows and items are padded with zeros to multiples of 32.
bfloat16 is held as uint16. `_pairs`: blocks of 32 x 32, (count / 32, d / 32, 16, 32, 2), whose rows are
interleaved two by two as the right side of a product wants them; `_columns`: the same of the transposed
matrix, (count / 32, d / 2, 32, 2).
"""

from recsys.kernels.shared.vector import (
    Array,
    Number,
    compiled,
)
from recsys.kernels.shared.vector.tiles import (
    BLOCK,
    add_block_product,
    clear_sums,
    load_sums,
    store_sums,
)

SPAN = 128
"""Rows or items that a block meets at once: their logits take 32 KiB."""


@compiled
def block_logits(
    logits: Array, left: Array, at: Number, columns: Array, first: Number, size: Number, width: Number
) -> None:
    """Set logits (32, SPAN) to left rows at..at+31 times `columns` first..first+size-1, whole blocks."""
    for beside in range(0, size, BLOCK):
        clear_sums()
        start = (first + beside) * width
        for d in range(0, width, BLOCK):
            add_block_product(left, at * width + d, width, columns, start + d * BLOCK, 2 * BLOCK)
        store_sums(logits, beside, SPAN)


@compiled
def block_gradients(
    gradients: Array, shares: Array, pairs: Array, first: Number, size: Number, width: Number
) -> None:
    """Add shares (32, SPAN) times rows first..first+size-1 of `pairs` to gradients (32, width)."""
    for d in range(0, width, BLOCK):
        load_sums(gradients, d, width)
        for row in range(0, size, BLOCK):
            add_block_product(shares, row, SPAN, pairs, (first + row) * width + d * BLOCK, 2 * BLOCK)
        store_sums(gradients, d, width)
