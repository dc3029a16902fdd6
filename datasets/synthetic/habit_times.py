"""Times of an imitation: when users begin, and the gaps between their events, by size after size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.synthetic.habits import bucket_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["Rhythm", "draw_times", "learn_rhythm"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rhythm:
    """When the users of a log do what they do.

    Attributes:
        starts: of each cluster, (n,) int64 first times of its users, rising.
        first, last: of the log.
        gaps: (n,) int64 seconds between events of a user, those of one size side by side.
        gap_start: (K+1,) int64 where each size begins.
        first_size: (K,) cumulative shares of a user's first gap, by size.
        next_size: (K, K) cumulative shares of the size after a size, row r from r to r + 1.
    """

    starts: list[Ints]
    first: int
    last: int
    gaps: Ints
    gap_start: Ints
    first_size: Floats
    next_size: Floats


def learn_rhythm(times: Ints, offsets: Ints, cluster: Ints) -> Rhythm:
    """Count gaps and first times.

    Args:
        times: (N,) int64 of the events, users one after the other, rising within each.
        offsets: (U+1,) int64.
        cluster: (U,) int64 of each user.
    """
    user = np.repeat(np.arange(len(cluster)), np.diff(offsets))
    inside = user[1:] == user[:-1]
    gap, owner = np.diff(times)[inside], user[1:][inside]
    size = bucket_of(gap)
    n_sizes = int(size.max(initial=0)) + 1
    same = owner[1:] == owner[:-1]
    chain = np.bincount(size[:-1][same] * n_sizes + size[1:][same], minlength=n_sizes**2).astype(np.float64)
    shares = np.bincount(size, minlength=n_sizes) / max(1, len(size))
    filled = chain.reshape(n_sizes, n_sizes) + shares + 1e-9
    upto = np.cumsum(filled, axis=1)
    begins = np.append(True, ~same) if len(size) else np.zeros(0, dtype=np.bool_)
    first_size = np.cumsum(np.bincount(size[begins], minlength=n_sizes) + shares + 1e-9)
    order = np.argsort(size, kind="stable")
    begun = times[offsets[:-1]]
    return Rhythm(
        starts=[np.sort(begun[cluster == c]) for c in range(int(cluster.max()) + 1)],
        first=int(times.min()),
        last=int(times.max()),
        gaps=gap[order],
        gap_start=np.concatenate(([0], np.cumsum(np.bincount(size, minlength=n_sizes)))),
        first_size=first_size / first_size[-1],
        next_size=upto / upto[:, -1:] + np.arange(n_sizes)[:, None],
    )


def draw_times(rhythm: Rhythm, cluster: Ints, lengths: Ints, rng: np.random.Generator) -> Ints:
    """(N,) int64 times of made users, one after the other, rising within each and within the log's own.

    Args:
        rhythm: of the log.
        cluster: (U,) int64 of each made user.
        lengths: (U,) int64 events of each.
        rng: source of the draws.
    """
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    steps = np.zeros(int(offsets[-1]), dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    starts, longest_first = offsets[:-1][order], lengths[order]
    size = np.zeros(len(order), dtype=np.int64)
    for step in range(1, int(longest_first[0])):
        living = int(np.searchsorted(-longest_first, -step))
        drawn = rng.random(living)
        if step == 1:
            size = np.searchsorted(rhythm.first_size, drawn, side="right")
        else:
            flat = np.searchsorted(rhythm.next_size.ravel(), size[:living] + drawn, side="right")
            size = flat - size[:living] * len(rhythm.first_size)
        size = np.minimum(size, len(rhythm.first_size) - 1)
        low, high = rhythm.gap_start[size], rhythm.gap_start[size + 1]
        place = low + (rng.random(living) * (high - low)).astype(np.int64)
        # A size without a gap has next to no chance; should it be drawn, it is the one before.
        steps[starts[:living] + step] = rhythm.gaps[np.minimum(place, len(rhythm.gaps) - 1)]
    total = np.cumsum(steps)
    since = total - np.repeat(total[offsets[:-1]], lengths)
    span = since[offsets[1:] - 1]
    room = rhythm.last - rhythm.first
    long = np.maximum(span / max(room, 1), 1.0)
    since = (since / np.repeat(long, lengths)).astype(np.int64)
    span = since[offsets[1:] - 1]
    begin = np.empty(len(lengths), dtype=np.int64)
    for c, starts_of in enumerate(rhythm.starts):
        mine = np.flatnonzero(cluster == c)
        # Between two first times that users have, seldom at one.
        begin[mine] = np.quantile(starts_of, rng.random(len(mine))).astype(np.int64)
    begin = np.maximum(rhythm.first, np.minimum(begin, rhythm.last - span))
    found: Ints = np.repeat(begin, lengths) + since
    return found
