"""How the convolution's kernels keep a block of channels: a row for each tap or earlier event.

Rows lie oldest first, as the columns of the weight and of the state do.
"""

from typing import Any

import numpy as np

from recsys.kernels.shared.vector import LANES, Array, Number, add, compiled, fma, load, store
from recsys.kernels.shared.vector.activation import inlined
from recsys.kernels.shared.vector.channel_blocks import (
    fill,
)

__all__ = [
    "BLOCK_D",
    "CHUNK",
    "ONE",
    "ROWS",
    "TAPS",
    "ZERO",
    "gather",
    "load_columns",
    "recall",
    "remember",
    "store_columns",
    "weigh",
]

BLOCK_D = 64
"""Channels of a task."""

CHUNK = 32
"""Events that one vector of channels takes before the next vector: their rows then stay in cache."""

TAPS = 4
"""The widest filter."""

ROWS = TAPS * BLOCK_D
"""Elements of one set of rows."""

ZERO = np.float32(0)
ONE = np.float32(1)


@compiled
def load_columns(source: Array, at: Number, columns: Number, count: Number, target: Array) -> None:
    """Lay column j of `count` rows of `columns` values from `at` as row j of `target`, zeros behind it."""
    fill(target, 0, columns * (BLOCK_D // LANES), ZERO)
    for channel in range(count):
        for j in range(columns):
            target[j * BLOCK_D + channel] = source[at + channel * columns + j]


@compiled
def store_columns(source: Array, columns: Number, count: Number, target: Array, at: Number) -> None:
    """Undo `load_columns`."""
    for channel in range(count):
        for j in range(columns):
            target[at + channel * columns + j] = source[j * BLOCK_D + channel]


@inlined
def weigh(width: Any, w0: Any, w1: Any, w2: Any, w3: Any, x0: Any, x1: Any, x2: Any, x3: Any, y: Any) -> Any:
    """Add the first `width` products to y; the others are not formed, for their x may be infinite."""
    y = fma(w1, x1, fma(w0, x0, y))
    if width > 2:
        y = fma(w2, x2, y)
    if width > 3:
        y = fma(w3, x3, y)
    return y


@inlined
def recall(width: Any, rows: Any, first: Any, back: Any) -> Any:
    """Load what was `back` events ago; rows lie oldest first. Beyond the filter's width, any value."""
    return load(rows, max(width - 1 - back, 0) * BLOCK_D + first)


@inlined
def remember(width: Any, rows: Any, first: Any, v1: Any, v2: Any, v3: Any) -> None:
    """Undo `recall`."""
    store(rows, (width - 2) * BLOCK_D + first, v1)
    if width > 2:
        store(rows, (width - 3) * BLOCK_D + first, v2)
    if width > 3:
        store(rows, first, v3)


@inlined
def gather(width: Any, rows: Any, first: Any, s0: Any, s1: Any, s2: Any, s3: Any) -> None:
    """Add a chunk's sums to those of the taps, the current event's last."""
    at = (width - 1) * BLOCK_D + first
    store(rows, at, add(load(rows, at), s0))
    store(rows, at - BLOCK_D, add(load(rows, at - BLOCK_D), s1))
    if width > 2:
        store(rows, at - 2 * BLOCK_D, add(load(rows, at - 2 * BLOCK_D), s2))
    if width > 3:
        store(rows, first, add(load(rows, first), s3))
