"""Explicit SIMD for the numba kernels: vectors of float32, a small matrix product, the threads' work queue.

A lane is one float32 of a vector register; LANES is the machine's number of them. A panel is two registers,
the widest tile of the small product. A task is what a thread draws from the queue at once.

LLVM's auto-vectorizer gives up on loops with selects, bit tricks or short trip counts, silently and by a
factor of ten. The kernels therefore name their vectors. Nothing here uses fast-math: every result has one
order of operations, so it has the same bits whatever the thread count, and NaN survives.
"""

from recsys.kernels.shared.vector.compiling import Array, Number, compiled
from recsys.kernels.shared.vector.lanes import (
    LANES,
    above_mask,
    add,
    divide,
    exp2,
    fma,
    load,
    lowest_bit,
    maximum,
    multiply,
    select_le,
    splat,
    square_root,
    store,
    subtract,
    sum_lanes,
    transpose_square,
)
from recsys.kernels.shared.vector.product import PANEL, product
from recsys.kernels.shared.vector.scratch import scratch
from recsys.kernels.shared.vector.work_queue import next_task

__all__ = [
    "LANES",
    "PANEL",
    "Array",
    "Number",
    "above_mask",
    "add",
    "compiled",
    "divide",
    "exp2",
    "fma",
    "load",
    "lowest_bit",
    "maximum",
    "multiply",
    "next_task",
    "product",
    "scratch",
    "select_le",
    "splat",
    "square_root",
    "store",
    "subtract",
    "sum_lanes",
    "transpose_square",
]
