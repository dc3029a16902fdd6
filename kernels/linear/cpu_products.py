"""The compiled loops of linear layers by matrix tiles; their blocks: `recsys.kernels.shared.vector.tiles`."""

from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    load,
    next_task,
    scratch,
    splat,
    store,
    transpose_square,
)
from recsys.kernels.shared.vector.tiles import (
    BLOCK,
    add_block_product,
    begin_tiles,
    clear_sums,
    end_tiles,
    load_sums,
    narrow_scratch,
    store_narrow,
    store_narrow_pair,
    store_sums,
)

CHUNK = 128
"""Rows that are rounded before they are multiplied, in `outer_worker`."""


@compiled
def product_worker(
    slot: Number,
    queue: Array,
    count: Number,
    x: Array,
    depth: Number,
    blocks: Array,
    bias: Array,
    width: Number,
    y: Array,
) -> None:
    """Set y (N, M) to x (N, K) times a matrix, plus a bias.

    Args:
        slot: see `recsys.kernels.shared.threads.launch`.
        queue: likewise.
        count: N.
        x: (N * K,) float32.
        depth: K.
        blocks: (M / 32, K / 32, 16, 32, 2) bfloat16 as uint16, the matrix.
        bias: (M,) float32, or empty.
        width: M.
        y: (N * M,) float32, written.
    """
    biased = len(bias) > 0
    left = narrow_scratch(BLOCK * depth)
    sums = scratch(BLOCK * BLOCK)
    before = begin_tiles()
    while True:
        row0 = next_task(queue) * BLOCK
        if row0 >= count:
            break
        rows = min(BLOCK, count - row0)
        for place in range(0, rows * depth, LANES):
            store_narrow(left, place, load(x, row0 * depth + place))
        for place in range(rows * depth, BLOCK * depth, LANES):
            store_narrow(left, place, splat(0.0))
        for column in range(0, width, BLOCK):
            clear_sums()
            for k in range(0, depth, BLOCK):
                add_block_product(left, k, depth, blocks, column * depth + k * BLOCK, 2 * BLOCK)
            if rows == BLOCK and not biased:
                store_sums(y, row0 * width + column, width)
                continue
            store_sums(sums, 0, BLOCK)
            for part in range(0, BLOCK, LANES):
                shift = load(bias, column + part) if biased else splat(0.0)
                for row in range(rows):
                    value = add(load(sums, row * BLOCK + part), shift)
                    store(y, (row0 + row) * width + column + part, value)
    end_tiles(before)


@compiled
def transpose_worker(
    slot: Number, queue: Array, count: Number, x: Array, width: Number, blocks: Array
) -> None:
    """Cut x (N, W) float32 into blocks (W / 32, padded N / 32, 32, 32) bfloat16, each transposed.

    `slot` and `queue`: see `recsys.kernels.shared.threads.launch`.
    """
    spans = (count + BLOCK - 1) // BLOCK
    columns = scratch(BLOCK * BLOCK)
    while True:
        span = next_task(queue)
        if span >= spans:
            return
        row0 = span * BLOCK
        for first in range(0, width, BLOCK):
            for d in range(0, BLOCK, LANES):
                for row in range(0, BLOCK, LANES):
                    rows = min(LANES, count - row0 - row)
                    if rows > 0:
                        start = (row0 + row) * width + first + d
                        transpose_square(columns, d * BLOCK + row, BLOCK, x, start, width, rows)
                    else:
                        for place in range(d * BLOCK + row, (d + LANES) * BLOCK, BLOCK):
                            store(columns, place, splat(0.0))
            block = (first * spans + span * BLOCK) * BLOCK
            for place in range(0, BLOCK * BLOCK, LANES):
                store_narrow(blocks, block + place, load(columns, place))


@compiled
def outer_worker(
    slot: Number,
    queue: Array,
    count: Number,
    left: Array,
    height: Number,
    right: Array,
    width: Number,
    sums: Array,
) -> None:
    """Set sums (H, M) to the sum over rows of left (N, H) times right (N, M).

    Args:
        slot: see `recsys.kernels.shared.threads.launch`.
        queue: likewise.
        count: N.
        left: (H / 32, padded N / 32, 32, 32) bfloat16 as uint16: blocks transposed, zeros in the padding.
        height: H.
        right: (N * M,) float32.
        width: M.
        sums: (H * M,) float32, written.
    """
    padded = (count + BLOCK - 1) // BLOCK * BLOCK
    pairs = narrow_scratch(CHUNK * BLOCK)
    before = begin_tiles()
    while True:
        column = next_task(queue) * BLOCK
        if column >= width:
            break
        for row0 in range(0, count, CHUNK):
            size = min(CHUNK, padded - row0)
            for row in range(0, size, 2):
                for part in range(0, BLOCK, LANES):
                    place = (row0 + row) * width + column + part
                    first = load(right, place) if row0 + row < count else splat(0.0)
                    second = load(right, place + width) if row0 + row + 1 < count else splat(0.0)
                    store_narrow_pair(pairs, (row * BLOCK) + 2 * part, first, second)
            for top in range(0, height, BLOCK):
                at = top * width + column
                if row0 == 0:
                    clear_sums()
                else:
                    load_sums(sums, at, width)
                for row in range(0, size, BLOCK):
                    block = top * padded + (row0 + row) * BLOCK
                    add_block_product(left, block, BLOCK, pairs, row * BLOCK, 2 * BLOCK)
                store_sums(sums, at, width)
    end_tiles(before)
