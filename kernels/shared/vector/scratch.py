"""Scratch memory that vectors do not straddle."""

import numpy as np

from recsys.kernels.shared.vector.compiling import Array, Number, compiled

_LINE = 64
"""Bytes of a cache line; numba aligns to 32, and a vector of 64 bytes across two lines costs twice."""


@compiled
def scratch(size: Number) -> Array:
    """Return (size,) float32 of a thread's own, not filled, beginning at a cache line."""
    room = np.empty(size + _LINE // 4, dtype=np.float32)
    skipped = (-room.ctypes.data % _LINE) // 4
    return room[skipped : skipped + size]
