"""The compiled loops: neighbours sorted by item, then one pass over their states; and ranks counted."""

import numpy as np

from recsys.kernels.local_aggregation.reference import NEAR
from recsys.kernels.shared.vector import Array, Number, compiled, next_task

_CHAINS = 4
"""Sums that are followed side by side: one alone would wait for every addition."""


@compiled
def score_worker(
    slot: Number,
    queue: Array,
    m: Number,
    width: Number,
    queries: Array,
    states: Array,
    owners: Array,
    ids: Array,
    near: Array,
    scores: Array,
    items: Array,
) -> None:
    """Write the scores of one query after the other."""
    keys, sums = np.empty(m, dtype=np.int64), np.empty(width, dtype=np.float64)
    count = len(queries) // max(width, 1)
    while True:
        query = next_task(queue)
        if query >= count:
            return
        start, found = query * m, 0
        for place in range(m):
            if ids[start + place] >= 0:
                keys[found] = owners[ids[start + place]] << 31 | place
                found += 1
        # Item after item, and the states of each from the nearest on.
        ordered = keys[:found]
        ordered.sort()
        at, written = 0, start
        while at < found:
            item, total = ordered[at] >> 31, 0.0
            sums[:] = 0.0
            while at < found and ordered[at] >> 31 == item:
                place = start + (ordered[at] & 0x7FFFFFFF)
                weight = 1 / max(np.sqrt(-np.float64(near[place])), NEAR)
                total += weight
                state = states[ids[place] * width : ids[place] * width + width]
                for d in range(width):
                    sums[d] += weight * np.float64(state[d])
                at += 1
            scores[written] = np.float32(-_squares(sums, total, queries, query * width, width))
            items[written] = item
            written += 1
        for place in range(written, start + m):
            scores[place] = -np.inf
            items[place] = -1


@compiled
def _squares(sums: Array, total: Number, queries: Array, q: Number, width: Number) -> Number:
    """The squared distance of sums / total to the query; overwrites the sums."""
    query = queries[q : q + width]
    for d in range(width):
        away = sums[d] / total - np.float64(query[d])
        sums[d] = away * away
    a, b, c, e = 0.0, 0.0, 0.0, 0.0
    whole = width - width % _CHAINS
    for d in range(0, whole, _CHAINS):
        a += sums[d]
        b += sums[d + 1]
        c += sums[d + 2]
        e += sums[d + 3]
    for d in range(whole, width):
        a += sums[d]
    return (a + b) + (c + e)


@compiled
def rank_worker(
    slot: Number,
    queue: Array,
    m: Number,
    n_items: Number,
    scores: Array,
    items: Array,
    behind: Array,
    log: Array,
    starts: Array,
    ends: Array,
    targets: Array,
    offsets: Array,
    kept: Array,
    removed: Array,
) -> None:
    """Count what is ahead of each target: items of a better tier, or of its own that score no less."""
    values, local = np.empty(n_items, dtype=np.float64), np.empty(n_items, dtype=np.int64)
    counted_for = np.full(n_items, -1, dtype=np.int64)
    while True:
        query = next_task(queue)
        if query >= len(offsets) - 1:
            return
        values[:] = behind[query * n_items : query * n_items + n_items]
        local[:] = 0
        for place in range(query * m, query * m + m):
            if items[place] >= 0:
                values[items[place]] = np.float64(scores[place])
                local[items[place]] = 1
        for row in range(offsets[query], offsets[query + 1]):
            target = targets[row]
            own_score, tier = values[target], local[target]
            ahead = np.int64(0)
            for item in range(n_items):
                level = np.int64(local[item] == tier) & np.int64(values[item] >= own_score)
                ahead += np.int64(local[item] > tier) | level
            counted_for[target] = row
            seen = np.int64(0)
            for at in range(starts[row], ends[row]):
                item = log[at]
                level = np.int64(local[item] == tier) & np.int64(values[item] >= own_score)
                seen += np.int64(counted_for[item] != row) & (np.int64(local[item] > tier) | level)
                counted_for[item] = row
            kept[row], removed[row] = ahead, ahead - seen
