"""Tasks of kernels that run along the events: groups of consecutive sequences times a block of channels."""

import numpy as np
from numpy.typing import NDArray

from recsys.kernels.shared.vector.activation import load_first, store_first
from recsys.kernels.shared.vector.compiling import Array, Number, compiled
from recsys.kernels.shared.vector.lanes import LANES, load, splat, store

__all__ = ["fill", "group_sequences", "load_block", "store_block"]

_ZERO = np.float32(0)


def group_sequences(offsets: NDArray[np.int32], events: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut the batch into groups of consecutive sequences of about `events` events.

    Returns:
        bounds (G + 1,): group g holds the sequences bounds[g] to bounds[g + 1]; a sequence is never cut.
        order (G,): the groups, longest first. Both depend on `offsets` alone, not on the threads.
    """
    if len(offsets) > 1 and offsets[-1] <= events:  # one small request, waited for
        return np.array([0, len(offsets) - 1]), np.zeros(1, np.int64)
    starts = offsets[:-1].astype(np.int64)
    # A group ends before the first sequence that starts in the next stretch of `events` events.
    first = np.flatnonzero(np.diff(starts // events, prepend=-1))
    bounds = np.append(first, len(starts))
    lengths = np.diff(offsets.astype(np.int64)[bounds])
    return bounds, np.argsort(-lengths, kind="stable")


@compiled
def fill(target: Array, at: Number, count: Number, value: Number) -> None:
    """Set `count` vectors from `at`."""
    for i in range(count):
        store(target, at + i * LANES, splat(value))


@compiled
def load_block(values: Array, channel: Number, count: Number, target: Array) -> None:
    """Copy a block's `count` channels to the vectors of `target`; zeros where there are no values."""
    for at in range(0, count, LANES):
        if len(values):
            store(target, at, load_first(values, channel + at, count - at))
        else:
            store(target, at, splat(_ZERO))


@compiled
def store_block(source: Array, target: Array, channel: Number, count: Number) -> None:
    """Copy a block's channels back."""
    for at in range(0, count, LANES):
        store_first(target, channel + at, count - at, load(source, at))
