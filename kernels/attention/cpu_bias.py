"""The compiled loops of the additive bias: scores in the forward sense, tables' gradients in the backward.

Legend: `lanes` queries of a block in the columns of a (keys, lanes) tile, as in `cpu_forward`.
"""

from typing import NamedTuple

import numpy as np

from recsys.kernels.attention.cpu_bias_vectors import TABLE_ENTRIES, last_lane, slide, time_scores
from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    add,
    compiled,
    load,
    multiply,
    splat,
    store,
)

COPIES = 4
"""Sums of one bucket that neighbouring queries take in turn, so that one addition need not await another."""

_ZERO = np.float32(0.0)


class Tables(NamedTuple):
    """The bias as the loops read it.

    Attributes:
        entries: (H * TABLE_ENTRIES,) float32, a padded time table per head.
        last: T - 1; -1 without a time table.
        times: (N,) int64.
        positions: (H * row,) float32; head h's entry of distance d lies at h * row + zero + d.
        row: see `positions`; 0 without a position table.
        zero: see `positions`.
        entry_of: (row,) int64, the entry of the position table at each index, counted from `reached`.
        reached: first entry of the position table that the batch's longest sequence reaches.
        n_entries: T + the entries reached, what a task's gradients take.
    """

    entries: Array
    last: Number
    times: Array
    positions: Array
    row: Number
    zero: Number
    entry_of: Array
    reached: Number
    n_entries: Number


@compiled
def read_times(tables: Tables, first: Number, count: Number, lanes: Number, target: Array) -> None:
    """Copy the times of a block's queries; idle lanes repeat the first."""
    if tables.last >= 0:
        for lane in range(lanes):
            target[lane] = tables.times[first + (lane if lane < count else 0)]


@compiled
def add_bias(
    scores: Array,
    keys: Number,
    lanes: Number,
    scale: Number,
    tables: Tables,
    head: Number,
    start: Number,
    block: Number,
    key0: Number,
    times: Array,
    buckets: Array,
) -> None:
    """Turn the products of a tile into scores, scale * product + bias, and note the time buckets.

    Args:
        scores: tile of queries `block`.. and keys `key0`.. of the sequence that begins at event `start`.
        keys: rows of it.
        lanes: columns of it.
        scale: factor on the products.
        tables: the bias.
        head: h.
        start: see `scores`.
        block: see `scores`.
        key0: see `scores`.
        times: (PANEL,) from `read_times`.
        buckets: int8 tile to fill.
    """
    factor = splat(scale)
    first = head * TABLE_ENTRIES
    middle = head * tables.row + tables.zero
    for at in range(0, lanes, LANES):
        for key in range(keys):
            index = key * lanes + at
            score = multiply(load(scores, index), factor)
            if tables.last >= 0:
                key_time = tables.times[start + key0 + key]
                score = add(
                    score,
                    time_scores(tables.entries, first, tables.last, times, at, key_time, buckets, index),
                )
            if tables.row > 0:
                score = add(score, load(tables.positions, middle + block + at - key0 - key))
            store(scores, index, score)


@compiled
def add_table_gradients(
    d_scores: Array,
    keys: Number,
    lanes: Number,
    count: Number,
    causal: Number,
    tables: Tables,
    block: Number,
    buckets: Array,
    sums: Array,
    diagonals: Array,
    partial: Array,
    to: Number,
) -> None:
    """Add the gradients of a block's scores, of all keys, to those of the tables.

    Args:
        d_scores: tile of gradients of the scores; zero where a query does not see a key and in idle lanes.
        keys: rows of it.
        lanes: columns of it.
        count: lanes that are not idle.
        causal: whether queries see no later key.
        tables: the bias.
        block: first query of the tile.
        buckets: int8 tile from `add_bias`.
        sums: (T * COPIES,) scratch, zero before and after.
        diagonals: (row,) sums by distance, added to.
        partial: gradients by bucket are added to it from `to`.
        to: see `partial`.
    """
    if tables.last >= 0:
        for key in range(keys):
            for lane in range(max(0, key - block) if causal else 0, count):
                index = key * lanes + lane
                sums[buckets[index] * COPIES + lane % COPIES] += d_scores[index]
        for bucket in range(tables.last + 1):
            total = _ZERO
            for copy in range(COPIES):
                total += sums[bucket * COPIES + copy]
                sums[bucket * COPIES + copy] = _ZERO
            partial[to + bucket] += total
    if tables.row > 0:
        rest = np.empty(LANES, dtype=np.float32)
        for at in range(0, lanes, LANES):
            # A pair's distance falls by one from key to key and grows by one from lane to lane: each diagonal
            # of the tile slides through a register, and its sum leaves by the last lane.
            window = splat(_ZERO)
            leaving = tables.zero + block + at + LANES - 1
            for key in range(keys):
                window = add(slide(window), load(d_scores, key * lanes + at))
                diagonals[leaving - key] += last_lane(window)
            store(rest, 0, window)
            for lane in range(LANES - 1):
                diagonals[leaving - keys + 1 - (LANES - 1) + lane] += rest[lane]


@compiled
def clear_diagonals(tables: Tables, length: Number, causal: Number, diagonals: Array) -> None:
    """Zero the sums by distance that a sequence of `length` events can reach."""
    if tables.row > 0:
        diagonals[tables.zero - (PANEL if causal else length) : tables.zero + length + PANEL] = _ZERO


@compiled
def fold_diagonals(
    tables: Tables, length: Number, causal: Number, diagonals: Array, partial: Array, to: Number
) -> None:
    """Add the sums by distance to the gradients of the position table, that begin at partial[to + T]."""
    if tables.row > 0:
        low = tables.zero - (PANEL if causal else length)
        for index in range(low, tables.zero + length + PANEL):
            partial[to + tables.last + 1 + tables.entry_of[index]] += diagonals[index]
