"""The compiled loops that check, score and order proposed items, one query after the other.

A served query is short: what these loops do takes a few microseconds, and as a dozen calls of numpy a
hundred. Every score is one sum in one order, whatever else is in the batch. Legend: b queries, d width,
V items, m proposals per query.
"""

import numpy as np

from recsys.kernels.ranking.cpu_top_k import ordered_bits
from recsys.kernels.ranking.cpu_top_k_exclude import Excluded
from recsys.kernels.ranking.cpu_top_k_single_thread import select_single_thread
from recsys.kernels.rescoring.cpu_best_of_table import best_of_table
from recsys.kernels.rescoring.cpu_float64_sum import exact_score
from recsys.kernels.shared.vector import LANES, PANEL, Array, Number, compiled

SLACK = 8
"""Items proposed past k, so that rounding seldom leaves the k-th place in doubt."""

_LEAST_SLACK = 22
_FEW = 4
"""Most queries that are scanned one after the other: more are scored together."""

_LOW_WORD = 0xFFFFFFFF
_LARGEST = 1e38


@compiled
def score_items(
    query: Array, vectors: Array, width: Number, items: Array, squared: Number, scores: Array
) -> None:
    """Write the float32 score of each item for one query."""
    for place in range(len(items)):
        scores[place] = np.float32(exact_score(query, 0, vectors, items[place] * width, width, squared))


@compiled
def holds(ordered: Array, start: Number, stop: Number, value: Number) -> Number:
    """Whether ordered[start : stop], ascending, holds a value."""
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < stop and ordered[low] == value


@compiled
def _extent(queries: Array, q: Number, width: Number, longest: Number, squared: Number) -> Number:
    """The size of the terms of a query's scores: |q| |v|, or (|q| + |v|)^2, for the longest item."""
    squares = 0.0
    for d in range(width):
        squares += np.float64(queries[q + d]) * np.float64(queries[q + d])
    length = np.sqrt(squares)
    return (length + longest) ** 2 if squared else length * longest


@compiled
def all_finite(values: Array) -> Number:
    """Whether no float32 is NaN or infinite."""
    total = np.float32(0.0)
    for place in range(len(values)):
        total += values[place] * np.float32(0.0)
    return total == np.float32(0.0)


@compiled
def overflows(queries: Array, width: Number, longest: Number, squared: Number) -> Number:
    """Whether a score of some query and an item no longer than `longest` could leave the range of float32."""
    for q in range(0, len(queries), width):
        if not _extent(queries, q, width, longest, squared) <= _LARGEST:
            return True
    return False


@compiled
def rescore(
    queries: Array,
    vectors: Array,
    squared: Number,
    ids: Array,
    found: Array,
    sign: Number,
    shifts: Array,
    complete: Number,
    labels: Array,
    candidates: Array,
    excluded: Array,
    offsets: Array,
    rows: Array,
    k: Number,
    most_scored: Number,
    longest: Number,
    out_scores: Array,
    out_ids: Array,
    doubtful: Array,
) -> tuple[Number, Number]:
    """Keep each query's first `most_scored` permitted proposals and write the k best of them, best first.

    Args:
        queries: (b, d), two-dimensional as the other matrices here: each view is work for the interpreter.
        vectors: (n, d), of which `ids` are rows.
        squared: score by -|q - v|^2 instead of q . v.
        ids: (b, m) proposals, -1 for none, in the order of `found`.
        found: (b, m) float32 scores of the search that proposed, best first; empty if it promises nothing
            about items that it did not propose.
        sign: of `found`: -1 where it holds distances.
        shifts: (b,) float64 to be taken from `found`, or empty.
        complete: whether nothing was left that could have been proposed.
        labels: (n,) ascending, the items that the vectors are of; empty where the rows are items themselves.
        candidates: ascending, the only items allowed; empty for all, or where `labels` are allowed.
        excluded: each row's excluded items, ascending, excluded[offsets[r] : offsets[r + 1]].
        offsets: see above.
        rows: (b,) the row of each query.
        k: answers per query.
        most_scored: most proposals that are scored.
        longest: greatest Euclidean length of a row of `vectors`.
        out_scores: (b, k) float32; -inf where there was no more.
        out_ids: (b, k) int64; -1 likewise.
        doubtful: (b,) bool: an item that was not scored could belong to the k best. A float32 sum of d
            products, in any order, is off by at most about d * 2^-24 * |q| |v| (Higham 2002, section 3.1);
            doubled, and for l2 with (|q| + |v|)^2 as the size of the terms.

    Returns:
        How many proposals were not candidates, and how many queries are in doubt; -1 for the first where a
        score could leave the range of float32.
    """
    flat, items = queries.reshape(-1), vectors.reshape(-1)
    count_items, width = vectors.shape
    m = ids.shape[1]
    proposed, scores = ids.reshape(-1), found.reshape(-1)
    out_bits, names = out_scores.reshape(-1).view(np.int32), out_ids.reshape(-1)
    keys = np.empty(min(m, most_scored), dtype=np.int64)
    score = np.empty(1, dtype=np.float32)
    score_bits = score.view(np.int32)
    score[0] = -np.inf
    lowest = score_bits[0]
    refused, doubts = 0, 0
    for place in range(len(rows)):
        extent = _extent(flat, place * width, width, longest, squared)
        if not extent <= _LARGEST:
            return -1, 0
        row = rows[place]
        start, stop = 0, 0
        if len(excluded) > 0:
            start, stop = offsets[row], offsets[row + 1]
        kept, last, more = 0, -1, False
        for at in range(place * m, place * m + m):
            own = proposed[at]
            if own < 0 or own >= count_items:
                continue
            item = labels[own] if len(labels) > 0 else own
            if len(candidates) > 0 and not holds(candidates, 0, len(candidates), item):
                refused += 1
                continue
            if start < stop and holds(excluded, start, stop, item):
                continue
            if kept == most_scored:
                more = True
                break
            score[0] = np.float32(exact_score(flat, place * width, items, own * width, width, squared))
            keys[kept] = ordered_bits(score_bits[0]) << 32 | (_LOW_WORD - item)
            kept += 1
            last = at
        ordered = keys[:kept]
        ordered.sort()
        written = 0
        for at in range(kept - 1, -1, -1):
            # A graph could name an item twice.
            if written == k or (at + 1 < kept and ordered[at + 1] == ordered[at]):
                continue
            out_bits[place * k + written] = ordered_bits(ordered[at] >> 32)
            names[place * k + written] = _LOW_WORD - (ordered[at] & _LOW_WORD)
            written += 1
        for at in range(place * k + written, place * k + k):
            out_bits[at] = lowest
            names[at] = -1
        doubtful[place] = False
        if len(scores) == 0 or (complete and not more):
            continue
        # Below the last one looked at; a search that ends in -1 had no more to give.
        end = last if more else place * m + m - 1
        if proposed[end] < 0:
            continue
        floor = sign * np.float64(scores[end])
        if len(shifts) > 0:
            floor -= shifts[place]
        margin = (width + 4) * 2.0**-23 * extent
        worst = -np.inf
        if written == k:
            score_bits[0] = out_bits[place * k + k - 1]
            worst = np.float64(score[0])
        if worst <= floor + margin:
            doubtful[place] = True
            doubts += 1
    return refused, doubts


@compiled
def rescore_gathered(
    queries: Array,
    table: Array,
    labels: Array,
    excluded: Array,
    offsets: Array,
    rows: Array,
    k: Number,
    most_excluded: Number,
    longest: Number,
    lanes: Number,
    out_scores: Array,
    out_ids: Array,
    doubtful: Array,
) -> tuple[Number, Number]:
    """Read a table of gathered items by inner product on this thread and rescore what it proposes.

    Args:
        queries: (b, d), two-dimensional as the other matrices here: each view is work for the interpreter.
        table: (n, d), the vectors of the n items in `labels`.
        labels: (n,) ascending.
        excluded: as in `rescore`; so are the others.
        offsets: see there.
        rows: see there.
        k: see there.
        most_excluded: most items that `excluded` takes away from a query.
        longest: see there.
        lanes: LANES, but unknown to the compiler.
        out_scores: (b, k) float32.
        out_ids: see there.
        doubtful: see there.

    Returns:
        As `rescore`.
    """
    width = queries.shape[1]
    flat, whole = queries.reshape(-1), table.reshape(-1)
    if overflows(flat, width, longest, False):
        return -1, 0
    fetched = min(len(labels), k + most_excluded + SLACK)
    none, open_ = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
    near = np.empty((len(rows), fetched), dtype=np.float32)
    at = np.empty((len(rows), fetched), dtype=np.int64)
    found, places = near.reshape(-1), at.reshape(-1)
    if len(rows) <= _FEW:
        for place in range(len(rows)):
            best_of_table(flat, place * width, whole, width, lanes, fetched, found, places, place * fetched)
    else:
        capacity = min(len(labels), fetched + max(fetched, _LEAST_SLACK))
        across = LANES if len(rows) <= LANES else PANEL
        select_single_thread(
            flat, across, whole, width, open_, Excluded(none, none, none), fetched, fetched, capacity,
            found.view(np.int32), places,
        )  # fmt: skip
    return rescore(
        queries, table, False, at, near, 1.0, np.empty(0, dtype=np.float64),
        fetched == len(labels), labels, none, excluded, offsets, rows, k, k + SLACK, longest,
        out_scores, out_ids, doubtful,
    )  # fmt: skip
