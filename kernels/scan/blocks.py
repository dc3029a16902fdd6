"""How the scan is cut into pieces of work, and the channel block that each piece keeps in cache.

A piece is a group of consecutive sequences times a block of channels. Inside a block, states lie as
[vector of channels][state][lane]: every operation is one on whole vectors. Lanes past the last channel hold
zeros, which the recurrence keeps.
"""


import numpy as np
from numpy.typing import NDArray

from recsys.kernels.activation import LOG2_E, load_first, store_first
from recsys.kernels.vector import LANES, Array, Number, compiled, load, splat, store

__all__ = [
    "BLOCK",
    "EVERY",
    "fill",
    "group_sequences",
    "load_block",
    "load_rates",
    "load_states",
    "store_block",
    "store_states",
]

BLOCK = 64
"""Channels of a piece: 16 states of them and their rates fill a quarter of a 32 KB cache."""

EVERY = 16
"""Events, counted from a sequence's start, between states kept for the backward pass."""


def group_sequences(offsets: NDArray[np.int32], events: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut the batch into groups of consecutive sequences of about `events` events.

    Returns:
        bounds (G + 1,): group g holds the sequences bounds[g] to bounds[g + 1]; a sequence is never cut.
        order (G,): the groups, longest first. Both depend on `offsets` alone, not on the threads.
    """
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
            store(target, at, splat(np.float32(0)))


@compiled
def store_block(source: Array, target: Array, channel: Number, count: Number) -> None:
    """Copy a block's channels back."""
    for at in range(0, count, LANES):
        store_first(target, channel + at, count - at, load(source, at))


@compiled
def load_rates(A: Array, channel: Number, count: Number, states: Number, target: Array) -> None:
    """Lay rows `channel` onwards of A (d_inner, d_state), times log2(e), as the block's vectors."""
    load_states(A, channel * states, count, states, target)
    for i in range((count + LANES - 1) // LANES * states * LANES):
        target[i] *= LOG2_E


@compiled
def load_states(source: Array, at: Number, count: Number, states: Number, target: Array) -> None:
    """Lay `count` rows of `states` values from `at` as the block's vectors."""
    for first in range(0, count, LANES):
        inside = min(LANES, count - first)
        to, row = first * states, at + first * states
        if inside < LANES:
            fill(target, to, states, np.float32(0))
        for lane in range(inside):
            for state in range(states):
                target[to + state * LANES + lane] = source[row + lane * states + state]


@compiled
def store_states(source: Array, count: Number, states: Number, target: Array, at: Number) -> None:
    """Undo `load_states`."""
    for first in range(0, count, LANES):
        to = at + first * states
        for lane in range(min(LANES, count - first)):
            for state in range(states):
                target[to + lane * states + state] = source[first * states + state * LANES + lane]
