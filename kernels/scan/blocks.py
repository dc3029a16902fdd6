"""How the scan is cut into pieces of work, and how a piece's channels lie in cache.

A piece is a group of consecutive sequences times a block of channels. What belongs to one state of one pair
of vectors (its decay rate, its value, ...) lies in one record, a pair of vectors per field: [pair][state]
[field][half][lane]. One running position then serves all fields, and no two of them compete for the same
line of the cache. Lanes past the last channel, and a last vector's missing partner, hold zeros, which the
recurrence keeps.
"""

import numpy as np
from numpy.typing import NDArray

from recsys.kernels.shared.vector import LANES, Array, Number, compiled, load, splat, store
from recsys.kernels.shared.vector.activation import LOG2_E, load_first, store_first

__all__ = [
    "BLOCK",
    "EVERY",
    "PAIR",
    "clear_states",
    "fill",
    "group_sequences",
    "load_block",
    "load_rates",
    "load_states",
    "restore_states",
    "save_states",
    "store_block",
    "store_states",
]

PAIR = 2 * LANES
"""Channels that the kernels advance together: they share what is read once per event and state."""

BLOCK = 64
"""Channels of a piece: their states and rates fill a quarter of a 32 KB cache where d_state is 16."""

EVERY = 16
"""Events, counted from a sequence's start, between states kept for the backward pass."""

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


@compiled
def clear_states(space: Array, count: Number, states: Number, record: Number, field: Number) -> None:
    """Set a field of the records of `count` channels to zero, whole pairs of vectors."""
    for at in range(field, field + (count + PAIR - 1) // PAIR * states * record, record):
        store(space, at, splat(_ZERO))
        store(space, at + LANES, splat(_ZERO))


@compiled
def load_states(
    source: Array, at: Number, count: Number, states: Number, space: Array, record: Number, field: Number
) -> None:
    """Read a (count, states) matrix from `at` into a field of the records, cleared before."""
    for channel in range(count):
        to = channel // PAIR * states * record + field + channel % PAIR
        for state in range(states):
            space[to + state * record] = source[at + channel * states + state]


@compiled
def store_states(
    space: Array, record: Number, field: Number, count: Number, states: Number, target: Array, at: Number
) -> None:
    """Undo `load_states`."""
    for channel in range(count):
        from_ = channel // PAIR * states * record + field + channel % PAIR
        for state in range(states):
            target[at + channel * states + state] = space[from_ + state * record]


@compiled
def load_rates(
    A: Array, channel: Number, count: Number, states: Number, space: Array, record: Number
) -> None:
    """Lay A (d_inner, d_state), times log2(e), from row `channel` as the records' first field."""
    clear_states(space, count, states, record, 0)
    load_states(A, channel * states, count, states, space, record, 0)
    for at in range(0, (count + PAIR - 1) // PAIR * states * record, record):
        for lane in range(PAIR):
            space[at + lane] *= LOG2_E


@compiled
def save_states(
    space: Array, record: Number, field: Number, count: Number, states: Number, kept: Array, at: Number
) -> None:
    """Copy a field to `kept` as [vector][state][lane]."""
    for first in range(0, count, LANES):
        from_ = first // PAIR * states * record + field + first % PAIR
        for state in range(states):
            store(kept, at + first * states + state * LANES, load(space, from_ + state * record))


@compiled
def restore_states(
    kept: Array, at: Number, count: Number, states: Number, space: Array, record: Number, field: Number
) -> None:
    """Undo `save_states`."""
    for first in range(0, count, LANES):
        to = first // PAIR * states * record + field + first % PAIR
        for state in range(states):
            store(space, to + state * record, load(kept, at + first * states + state * LANES))
