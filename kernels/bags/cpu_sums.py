"""The compiled loop over bags: a bag's rows are added in their order, a vector of columns or four at a time.

A long bag is summed by parts of `PART` rows, whose sums are added in order: one chain of float32 additions of
thousands of like rows would lose a digit and more.
"""

import numpy as np

from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    fma,
    load,
    next_task,
    splat,
    store,
)

__all__ = ["sum_worker"]

PART = 64

_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled
def sum_worker(
    slot: Number,
    queue: Array,
    bounds: Array,
    offsets: Array,
    rows: Array,
    weights: Array,
    table: Array,
    width: Number,
    out: Array,
) -> None:
    """Sum the bags from bounds[task] to bounds[task + 1]."""
    wide, whole = width - width % (4 * LANES), width - width % LANES
    weighted = len(weights) > 0
    while True:
        task = next_task(queue)
        if task >= len(bounds) - 1:
            return
        for bag in range(bounds[task], bounds[task + 1]):
            begin, end, to = offsets[bag], offsets[bag + 1], bag * width
            for d in range(0, wide, 4 * LANES):
                a = b = c = e = splat(_ZERO)
                for first in range(begin, end, PART):
                    a_part = b_part = c_part = e_part = splat(_ZERO)
                    for entry in range(first, min(first + PART, end)):
                        factor = splat(weights[entry] if weighted else _ONE)
                        at = rows[entry] * width + d
                        a_part = fma(factor, load(table, at), a_part)
                        b_part = fma(factor, load(table, at + LANES), b_part)
                        c_part = fma(factor, load(table, at + 2 * LANES), c_part)
                        e_part = fma(factor, load(table, at + 3 * LANES), e_part)
                    a, b, c, e = add(a, a_part), add(b, b_part), add(c, c_part), add(e, e_part)
                store(out, to + d, a)
                store(out, to + d + LANES, b)
                store(out, to + d + 2 * LANES, c)
                store(out, to + d + 3 * LANES, e)
            for d in range(wide, whole, LANES):
                a = splat(_ZERO)
                for first in range(begin, end, PART):
                    a_part = splat(_ZERO)
                    for entry in range(first, min(first + PART, end)):
                        factor = splat(weights[entry] if weighted else _ONE)
                        a_part = fma(factor, load(table, rows[entry] * width + d), a_part)
                    a = add(a, a_part)
                store(out, to + d, a)
            for d in range(whole, width):
                total = _ZERO
                for first in range(begin, end, PART):
                    part = _ZERO
                    for entry in range(first, min(first + PART, end)):
                        factor = weights[entry] if weighted else _ONE
                        part += factor * table[rows[entry] * width + d]
                    total += part
                out[to + d] = total
