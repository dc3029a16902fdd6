"""Draws behind the synthetic logs: transition tables, walks, rising times; all from one generator."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

START_S = 1_672_531_200  # 2023-01-01T00:00:00Z
DAY_S = 86_400


def distinct_rows(n_items: int, width: int, rng: np.random.Generator) -> Ints:
    """(n_items, width) int64, each row distinct items, none the row's own."""
    rows = rng.integers(0, n_items - 1, (n_items, width))
    if width * 4 > n_items:  # too many clashes to draw again: shuffle whole rows
        rows = rng.permuted(np.tile(np.arange(n_items - 1), (n_items, 1)), axis=1)[:, :width]
    else:
        while True:
            ordered = np.sort(rows, axis=1)
            clash = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
            if not clash.any():
                break
            rows[clash] = rng.integers(0, n_items - 1, (int(clash.sum()), width))
    return rows + (rows >= np.arange(n_items)[:, None])


def walk(offsets: Ints, n_items: int, successors: Ints, cumulative: Floats, rng: np.random.Generator) -> Ints:
    """Items of all users, all walking at once: the longest walks first, so that the living are a prefix."""
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    starts, longest_first = offsets[:-1][order], lengths[order]
    items = np.empty(int(offsets[-1]), dtype=np.int64)
    here = rng.integers(0, n_items, len(lengths))
    items[starts] = here
    for step in range(1, int(longest_first[0])):
        living = int(np.searchsorted(-longest_first, -step))
        rank = np.searchsorted(cumulative, rng.random(living), side="right")
        anywhere = rng.integers(0, n_items, living)
        follows = rank < len(cumulative)
        here = np.where(follows, successors[here[:living], np.minimum(rank, len(cumulative) - 1)], anywhere)
        items[starts[:living] + step] = here
    return items


def steady_times(offsets: Ints, rng: np.random.Generator) -> Ints:
    """Rising times: users begin within a year, gaps are lognormal with a median of some hours."""
    lengths = np.diff(offsets)
    gaps = 1 + rng.lognormal(9.0, 1.5, int(offsets[-1])).astype(np.int64)
    begin = START_S + rng.integers(0, 365 * DAY_S, len(lengths))
    return within_users(gaps, offsets) + np.repeat(begin, lengths)


def within_users(steps: Ints, offsets: Ints) -> Ints:
    """Cumulative sums that begin anew for each user."""
    total = np.cumsum(steps)
    before = total[offsets[:-1]] - steps[offsets[:-1]]
    return total - np.repeat(before, np.diff(offsets))
