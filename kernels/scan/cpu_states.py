"""How the states of a block of channels lie in cache while the scan runs on the CPU.

A task is a group of consecutive sequences times a block of channels. What belongs to one state of one pair
of vectors (its decay rate, its value, ...) lies in one record, a pair of vectors per field: [pair][state]
[field][half][lane]. One running position then serves all fields, and no two of them compete for the same
line of the cache. Lanes past the last channel, and a last vector's missing partner, hold zeros, which the
recurrence keeps.
"""

import numpy as np

from recsys.kernels.shared.vector import LANES, Array, Number, compiled, load, splat, store
from recsys.kernels.shared.vector.activation import LOG2_E

__all__ = [
    "BLOCK_D",
    "KEEP",
    "PAIR",
    "clear_states",
    "load_rates",
    "load_states",
    "restore_states",
    "save_states",
    "store_states",
]

PAIR = 2 * LANES
"""Channels that the kernels advance together: they share what is read once per event and state."""

BLOCK_D = 64
"""Channels of a task: their states and rates fill a quarter of a 32 KB cache where d_state is 16."""

KEEP = 16
"""Events, counted from a sequence's start, between states kept for the backward pass."""

_ZERO = np.float32(0)


@compiled
def clear_states(space: Array, count: Number, d_state: Number, record: Number, field: Number) -> None:
    """Set a field of the records of `count` channels to zero, whole pairs of vectors."""
    for at in range(field, field + (count + PAIR - 1) // PAIR * d_state * record, record):
        store(space, at, splat(_ZERO))
        store(space, at + LANES, splat(_ZERO))


@compiled
def load_states(
    source: Array, at: Number, count: Number, d_state: Number, space: Array, record: Number, field: Number
) -> None:
    """Read a (count, d_state) matrix from `at` into a field of the records, cleared before."""
    for channel in range(count):
        to = channel // PAIR * d_state * record + field + channel % PAIR
        for state in range(d_state):
            space[to + state * record] = source[at + channel * d_state + state]


@compiled
def store_states(
    space: Array, record: Number, field: Number, count: Number, d_state: Number, target: Array, at: Number
) -> None:
    """Undo `load_states`."""
    for channel in range(count):
        from_ = channel // PAIR * d_state * record + field + channel % PAIR
        for state in range(d_state):
            target[at + channel * d_state + state] = space[from_ + state * record]


@compiled
def load_rates(
    A: Array, channel: Number, count: Number, d_state: Number, space: Array, record: Number
) -> None:
    """Lay A (d_inner, d_state), times log2(e), from row `channel` as the records' first field."""
    clear_states(space, count, d_state, record, 0)
    load_states(A, channel * d_state, count, d_state, space, record, 0)
    for at in range(0, (count + PAIR - 1) // PAIR * d_state * record, record):
        for lane in range(PAIR):
            space[at + lane] *= LOG2_E


@compiled
def save_states(
    space: Array, record: Number, field: Number, count: Number, d_state: Number, kept: Array, at: Number
) -> None:
    """Copy a field to `kept` as [vector][state][lane]."""
    for first in range(0, count, LANES):
        from_ = first // PAIR * d_state * record + field + first % PAIR
        for state in range(d_state):
            store(kept, at + first * d_state + state * LANES, load(space, from_ + state * record))


@compiled
def restore_states(
    kept: Array, at: Number, count: Number, d_state: Number, space: Array, record: Number, field: Number
) -> None:
    """Undo `save_states`."""
    for first in range(0, count, LANES):
        to = first // PAIR * d_state * record + field + first % PAIR
        for state in range(d_state):
            store(space, to + state * record, load(kept, at + first * d_state + state * LANES))
