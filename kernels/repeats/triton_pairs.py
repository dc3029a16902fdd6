# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What the GPU's kernels of repeats share: a block of rows, runs of places, buckets and their sums.

A program takes a block of rows or of events of one sequence, counted from the sequence's start, so that its
bits are the same whatever the batch. Legend: N events, B sequences, M rows that predict, d width, K buckets.
"""

import triton
import triton.language as tl

from recsys.kernels.shared.triton_math import LOG2_E

__all__ = ["add_by_bucket", "bucket_of", "d_gains", "log1p", "power_of", "runs", "store_loss"]

_NOWHERE = tl.constexpr(1 << 29)


@triton.jit
def log1p(x):
    """log(1 + x), to 3e-7 of its value for x above -1; NaN stays.

    Near 0 as 2 atanh(x / (2 + x)) by its series, |x / (2 + x)| at most 1/3: log(1 + x) itself would lose x.
    """
    near = (x >= -0.5) & (x <= 1.0)
    small = tl.where(near, x, 0.0)
    s = small / (2.0 + small)
    square = s * s
    series = 0.28178335 * square + 0.27960603
    series = series * square + 0.4002491
    series = series * square + 0.66666315
    series = series * square + 2.0
    return tl.where(near, s * series, tl.log(1.0 + x))


@triton.jit
def bucket_of(gap, last):
    """Place of the leading bit of int32 gaps, 0 for 0, at most `last`, exact below 2^24."""
    bits = tl.maximum(gap, 1).to(tl.float32).to(tl.int32, bitcast=True)
    return tl.minimum((bits >> 23) - 127, last)


@triton.jit
def power_of(products, total, rate):
    """e^(score - total) of a tile of products of vectors, and totals that broadcast to it."""
    return tl.exp2((products * rate - total) * LOG2_E)


@triton.jit
def runs(event, key, inside, length, visible, following, preceding, SEES_LATER: tl.constexpr):
    """First and last place at which each event `key` of a sequence is the nearest of its item.

    `event` is where it lies in the batch. None if it is not visible: the first is then behind the last. Of
    two events as near the earlier one counts.
    """
    first = key + 1
    last = tl.load(following + event, mask=inside, other=0)
    if SEES_LATER:
        first = ((tl.load(preceding + event, mask=inside, other=0) + key) >> 1) + 1
        last = (last + key) >> 1
    counts = tl.load(visible + event, mask=inside, other=0) != 0
    return tl.where(counts, first, length + 1), tl.where(counts, tl.minimum(last, length), -1)


@triton.jit
def store_loss(correction, gained, row, inside, gain, mine, every, own, even, least):
    """Write what rows gain and their correction: `mine` the target's bias, `every` that of all."""
    tl.store(gained + row, gain, mask=inside)
    # A NaN is not below: it stays.
    left = tl.where(gain < least, least, gain)
    loss = log1p(left) - own * mine - even * every
    tl.store(correction + row, loss.to(correction.dtype.element_ty), mask=inside)


@triton.jit
def d_gains(above, gained, row, inside, least):
    """Gradient of what rows gain, from that of their corrections."""
    gain = tl.load(gained + row, mask=inside, other=0.0)
    clamped = gain < least
    return tl.where(clamped, 0.0, above / tl.where(clamped, 1.0, 1.0 + gain))


@triton.jit
def add_by_bucket(sums, first, tile, bucket, counted, LANES: tl.constexpr):
    """Add a tile to `sums` (LANES,) by bucket, where `counted`; bucket b is lane first + b.

    A masked sum for each bucket that the tile holds: neighbours hold few.
    """
    lowest = tl.min(tl.min(tl.where(counted, bucket, _NOWHERE), 1), 0)
    highest = tl.max(tl.max(tl.where(counted, bucket, -1), 1), 0)
    lane = tl.arange(0, LANES)
    for number in range(lowest, highest + 1):
        share = tl.sum(tl.sum(tl.where(counted & (bucket == number), tile, 0.0), 1), 0)
        sums = tl.where(lane == first + number, sums + share, sums)
    return sums
