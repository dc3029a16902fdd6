# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Attention's bias inside the GPU's kernels: looked up for a tile of scores, and its gradient from a tile.

Index tensors have shapes that broadcast to the tile, whichever way it lies. Gradients of the tables are sums
over many programs: each writes a row of its own, the host adds the rows in order.
"""

import triton
import triton.language as tl

from recsys.kernels.attention.bias import MAX_GAP
from recsys.kernels.shared.triton_math import LOG2_E

_MAX_GAP = tl.constexpr(MAX_GAP)
_FAR = tl.constexpr(2**61)
"""Seconds beyond any time; twice that is still an int64."""
BUCKETS = tl.constexpr(128)
"""Lanes of a row of time buckets, of which at most `bias.MAX_BUCKETS` are used."""


@triton.jit
def _bucket(gap, buckets):
    """`bias.time_bucket` of int64 gaps.

    The exponent and the two highest fraction bits of a float are 4 * (leading bit) + quarter. The conversion
    must not round up: of a gap with more than 24 bits, x >> 24 has its own leading bit just where rounding
    is decided, and clearing that bit always rounds down.
    """
    gap = tl.minimum(tl.maximum(gap, 0), _MAX_GAP).to(tl.int32)
    plain = gap & ~(gap >> 24)
    bits = plain.to(tl.float32).to(tl.int32, bitcast=True)
    bucket = tl.where(gap < 4, gap, (bits >> 21) - 512)
    return tl.minimum(bucket, buckets - 1)


@triton.jit
def time_buckets(a, b, buckets):
    """Buckets of |a - b| for int64 times."""
    return _bucket(tl.abs(a - b), buckets)


@triton.jit
def bucket_range(query_times, key_times, query_inside, key_inside, buckets):
    """First and last bucket that pairs of a tile can have: all that lies between the two spans of time.

    Args:
        query_times: (R,) int64, or (sequences, R): pairs are within a sequence.
        key_times: (C,) or (sequences, C).
        query_inside: which queries exist.
        key_inside: which keys exist.
        buckets: T.
    """
    axis: tl.constexpr = len(query_times.shape) - 1
    query_low = tl.min(tl.where(query_inside, query_times, _FAR), axis)
    query_high = tl.max(tl.where(query_inside, query_times, -_FAR), axis)
    key_low = tl.min(tl.where(key_inside, key_times, _FAR), axis)
    key_high = tl.max(tl.where(key_inside, key_times, -_FAR), axis)
    least = tl.maximum(query_low - key_high, key_low - query_high)
    most = tl.maximum(query_high - key_low, key_high - query_low)
    if axis == 1:
        least, most = tl.min(least, 0), tl.max(most, 0)
    return _bucket(least, buckets), _bucket(most, buckets)


@triton.jit
def position_entries(query, key, entries, CAUSAL: tl.constexpr):
    """`bias.relative_position`."""
    distance = query - key
    if CAUSAL:
        return tl.minimum(tl.maximum(distance, 0), entries - 1)
    else:
        most = (entries - 1) // 2
        return tl.minimum(tl.maximum(distance, -most), most) + most


@triton.jit
def add_bias(
    scores,
    query,
    key,
    query_times,
    key_times,
    QUERY_AXIS: tl.constexpr,
    KEY_AXIS: tl.constexpr,
    head,
    time_table,
    buckets,
    position_table,
    entries,
    CAUSAL: tl.constexpr,
):
    """Add the float32 tables' entries to scores in units of log2; a table that is None adds nothing.

    Indices of queries and keys have the scores' shape; their times lack an axis, which is added here: under
    Triton 3.6 a function cannot give None back for times that are None.
    """
    if time_table is not None:
        asked = tl.expand_dims(query_times, QUERY_AXIS)
        bucket = time_buckets(asked, tl.expand_dims(key_times, KEY_AXIS), buckets)
        scores += tl.load(time_table + head * buckets + bucket) * LOG2_E
    if position_table is not None:
        entry = position_entries(query, key, entries, CAUSAL)
        scores += tl.load(position_table + head * entries + entry) * LOG2_E
    return scores


@triton.jit
def sum_buckets(row, d_scores, bucket, lowest, highest):
    """Add a tile's score gradients to a row (BUCKETS,) by time bucket: a masked sum for each in its range."""
    lanes = tl.arange(0, BUCKETS)
    for number in range(lowest, highest + 1):
        share = tl.sum(tl.where(bucket == number, d_scores, 0.0))
        row = tl.where(lanes == number, row + share, row)
    return row


@triton.jit
def sum_diagonals(d_scores, key, BLOCK_M: tl.constexpr):
    """Sum a tile (BLOCK_M, C), score gradients of queries x keys, along its diagonals.

    C is at most BLOCK_M, or n squares. The tile is sheared: lane d of a column takes row (key + d) mod
    BLOCK_M, so that a diagonal becomes a row.

    Args:
        d_scores: the tile; zeros where nothing is seen.
        key: (C,) index of each key, counted like the rows.
        BLOCK_M: rows of the tile.

    Returns:
        Two (BLOCK_M,) tensors: sums at row - key = d, and at d - BLOCK_M, for d = 0 to BLOCK_M - 1.
    """
    lane = tl.arange(0, BLOCK_M)[:, None] + key[None, :]
    sheared = tl.gather(d_scores, lane % BLOCK_M, 0)
    ahead = tl.sum(tl.where(lane < BLOCK_M, sheared, 0.0), 1)
    return ahead, tl.sum(tl.where(lane < BLOCK_M, 0.0, sheared), 1)


@triton.jit
def store_diagonals(row, sums, distance, done, entries, CAUSAL: tl.constexpr):
    """Store the sums (D,) of distances that have an entry of their own, where `done`."""
    if CAUSAL:
        tl.store(row + distance, sums, mask=done & (distance >= 0) & (distance < entries - 1))
    else:
        most = (entries - 1) // 2
        tl.store(row + most + distance, sums, mask=done & (distance > -most) & (distance < most))


@triton.jit
def sum_ends(d_scores, distance, entries, CAUSAL: tl.constexpr):
    """Sum a tile's score gradients that the last entry stands for, and those that the first one does."""
    if CAUSAL:
        return tl.sum(tl.where(distance >= entries - 1, d_scores, 0.0)), 0.0
    else:
        most = (entries - 1) // 2
        far = tl.sum(tl.where(distance >= most, d_scores, 0.0))
        return far, tl.sum(tl.where((distance <= -most) & (distance < most), d_scores, 0.0))


@triton.jit
def store_ends(row, far, near, entries, CAUSAL: tl.constexpr):
    """Store what `sum_ends` found; a table of one entry takes both."""
    if CAUSAL:
        tl.store(row + entries - 1, far)
    else:
        tl.store(row + entries - 1, tl.where(entries == 1, far + near, far))
        tl.store(row, near, mask=entries > 1)


@triton.jit
def pass_on(sums, behind, BLOCK_N: tl.constexpr):
    """Move diagonal sums (R,) on to the next BLOCK_N keys, as many distances lower; take in those behind."""
    lane = tl.arange(0, sums.shape[0])
    source = (lane + (sums.shape[0] - BLOCK_N)) % sums.shape[0]
    return tl.where(lane >= BLOCK_N, tl.gather(sums, source, 0), tl.gather(behind, source, 0))
