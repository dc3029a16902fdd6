"""Times of an imitation: when users begin, and the gaps between their events, by size after size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.synthetic.habits import LEAST, bucket_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["Rhythm", "draw_times", "learn_rhythm"]

_CLASSES = 8
"""Classes of users by length, of as many users each: who does more waits less."""


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """Seconds between the events of some users.

    Attributes:
        gaps: (n,) int64, those of one size side by side.
        start: (K+1,) int64 where each size begins.
        first_size: (K,) cumulative shares of a user's first gap, by size.
        next_size: (K, K) cumulative shares of the size after a size, row r from r to r + 1.
    """

    gaps: Ints
    start: Ints
    first_size: Floats
    next_size: Floats

    @classmethod
    def of(cls, gap: Ints, owner: Ints) -> "Gaps":
        """Count gaps of users that lie one after the other."""
        size = bucket_of(gap)
        n_sizes = int(size.max(initial=0)) + 1
        same = owner[1:] == owner[:-1]
        chain = np.bincount(size[:-1][same] * n_sizes + size[1:][same], minlength=n_sizes**2)
        shares = np.bincount(size, minlength=n_sizes) / max(1, len(size))
        begins = np.append(True, ~same) if len(size) else np.zeros(0, dtype=np.bool_)
        # After a size that nobody went on from come gaps as they are; a size without gaps never comes.
        upto = np.cumsum(chain.reshape(n_sizes, n_sizes) + shares, axis=1)
        first = np.cumsum(np.bincount(size[begins], minlength=n_sizes) + shares)
        counts = np.bincount(size, minlength=n_sizes)
        return cls(
            gaps=gap[np.argsort(size, kind="stable")],
            start=np.concatenate(([0], np.cumsum(counts))),
            first_size=first / max(first[-1], 1e-9),
            next_size=upto / np.maximum(upto[:, -1:], 1e-9) + np.arange(n_sizes)[:, None],
        )

    def draw(self, lengths: Ints, rng: np.random.Generator) -> Ints:
        """(N,) int64 gap before each event of made users, one after the other; 0 before a first."""
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        steps = np.zeros(int(offsets[-1]), dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        starts, longest_first = offsets[:-1][order], lengths[order]
        size = np.zeros(len(order), dtype=np.int64)
        width = len(self.first_size)
        for step in range(1, int(longest_first[0]) if len(self.gaps) else 0):
            living = int(np.searchsorted(-longest_first, -step))
            drawn = rng.random(living)
            if step == 1:
                size = np.searchsorted(self.first_size, drawn, side="right")
            else:
                flat = np.searchsorted(self.next_size.ravel(), size[:living] + drawn, side="right")
                size = flat - size[:living] * width
            size = np.minimum(size, width - 1)
            low, high = self.start[size], self.start[size + 1]
            place = low + (rng.random(living) * (high - low)).astype(np.int64)
            steps[starts[:living] + step] = self.gaps[np.minimum(place, len(self.gaps) - 1)]
        return steps


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rhythm:
    """When the users of a log do what they do.

    Attributes:
        starts: of each cluster, (n,) int64 first times of its users, rising.
        first, last: of the log.
        edges: least lengths of all classes of users but the first.
        gaps: of each class.
    """

    starts: list[Ints]
    first: int
    last: int
    edges: Ints
    gaps: list[Gaps]


def learn_rhythm(times: Ints, offsets: Ints, cluster: Ints) -> Rhythm:
    """Count gaps and first times.

    Args:
        times: (N,) int64 of the events, users one after the other, rising within each.
        offsets: (U+1,) int64.
        cluster: (U,) int64 of each user.
    """
    lengths = np.diff(offsets)
    user = np.repeat(np.arange(len(cluster)), lengths)
    inside = user[1:] == user[:-1]
    gap, owner = np.diff(times)[inside], user[1:][inside]
    n_classes = max(1, min(_CLASSES, len(lengths) // (10 * LEAST)))
    quantiles = np.quantile(lengths, np.arange(1, n_classes) / n_classes, method="nearest")
    edges = np.unique(quantiles.astype(np.int64))
    # The first class may be empty: its edge is the least length there is.
    edges = edges[edges > lengths.min()]
    kind = np.searchsorted(edges, lengths, side="right")[owner]
    begun = times[offsets[:-1]]
    return Rhythm(
        starts=[np.sort(begun[cluster == c]) for c in range(int(cluster.max()) + 1)],
        first=int(times.min()),
        last=int(times.max()),
        edges=edges,
        gaps=[Gaps.of(gap[kind == k], owner[kind == k]) for k in range(len(edges) + 1)],
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
    steps = np.empty(int(offsets[-1]), dtype=np.int64)
    kind = np.searchsorted(rhythm.edges, lengths, side="right")
    for number, gaps in enumerate(rhythm.gaps):
        mine = kind == number
        if mine.any():
            steps[np.repeat(mine, lengths)] = gaps.draw(lengths[mine], rng)
    total = np.cumsum(steps)
    since = total - np.repeat(total[offsets[:-1]], lengths)
    span = since[offsets[1:] - 1]
    long = np.maximum(span / max(rhythm.last - rhythm.first, 1), 1.0)
    since = (since / np.repeat(long, lengths)).astype(np.int64)
    span = since[offsets[1:] - 1]
    begin = np.empty(len(lengths), dtype=np.int64)
    for number, starts in enumerate(rhythm.starts):
        mine = cluster == number
        # Between two first times that users have, seldom at one.
        begin[mine] = np.quantile(starts, rng.random(int(mine.sum()))).astype(np.int64)
    begin = np.maximum(rhythm.first, np.minimum(begin, rhythm.last - span))
    found: Ints = np.repeat(begin, lengths) + since
    return found
