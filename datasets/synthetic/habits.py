"""What a log's users do, as counts over many of them: the statistics that an imitation is drawn from.

Nothing here is of one user: a step from item to item counts where at least `LEAST` users took it, a cluster
has at least as many users, and everything else is a count over a cluster or over all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.synthetic.tastes import k_means, singular_vectors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["LEAST", "Habits", "RareTriples", "bucket_of", "learn_habits"]

LEAST = 3
"""Users that have to share what is imitated."""
_AHEAD = (1, 3)
"""Steps lead to the next event; where too few take one, up to three ahead, as nearby ones are often tied."""
_DISCOUNT = 0.75
"""Taken off each count of a step and given to the general habits (absolute discounting, Ney et al. 1994)."""
_SHARED = 0.05
"""Share of all users' habits in those of a cluster."""
_WIDTH = 24
_MOST_BINS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Which item follows which.

    Attributes:
        start: (V+1,) int64 the first step from each item.
        to: (S,) int64 where it leads.
        upto: (S,) cumulative weights.
        share: (V,) how likely any of an item's is taken.
        share_back: (V,) the same of events of an item that the user had.
    """

    start: Ints
    to: Ints
    upto: Floats
    share: Floats
    share_back: Floats

    def draw(self, here: Ints, rng: np.random.Generator) -> Ints:
        """(n,) where steps lead from items that have some."""
        low, high = self.start[here], self.start[here + 1]
        under = np.where(low > 0, self.upto[low - 1], 0)
        drawn = under + rng.random(len(here)) * (self.upto[high - 1] - under)
        return self.to[np.clip(np.searchsorted(self.upto, drawn, side="right"), low, high - 1)]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Habits:
    """Statistics of a log of V items; clusters of users are c < C, groups of items g < G.

    Attributes:
        cluster: (U,) int64 of each user.
        lengths: of each cluster, (n,) int64 lengths of its users, rising.
        group: (V,) int64 of each item.
        by_group: (V,) int64 items, those of a group side by side.
        group_start: (G+1,) int64 where each begins in ``by_group``.
        items_upto: (C, V) cumulative shares of the items in the order of ``by_group``, rising by 1 a row.
        first_group: (C, G) cumulative shares of the first event's group, likewise.
        next_group: (C x G, G) cumulative shares of the group after a group, likewise.
        cluster_lift: (C, V) float32 how much likelier an item is in a cluster than in all.
        bin_edges: (B-1,) int64 times that part the log into bins; empty where it has none.
        bin_lift: (B, V) float32 how much likelier an item is in a bin of time than in all.
        steps: to the next event, and to one of the next three.
        repeats: (C, K) how likely the event at a place is of an item that the user had, by `bucket_of` place.
        repeat_lags: (n,) int64 events since it, rising.
    """

    cluster: Ints
    lengths: list[Ints]
    group: Ints
    by_group: Ints
    group_start: Ints
    items_upto: Floats
    first_group: Floats
    next_group: Floats
    cluster_lift: NDArray[np.float32]
    bin_edges: Ints
    bin_lift: NDArray[np.float32]
    steps: "tuple[Steps, ...]"
    repeats: Floats
    repeat_lags: Ints

    @property
    def n_items(self) -> int:
        """V."""
        return len(self.group)

    @property
    def n_groups(self) -> int:
        """G."""
        return len(self.group_start) - 1


class RareTriples:
    """Three events in a row as fewer than `LEAST` users have them: no imitation may.

    Args:
        items: (N,) int64 events, users one after the other.
        user: (N,) int64 whose they are.
        n_items: V.
    """

    def __init__(self, items: Ints, user: Ints, n_items: int) -> None:
        self.n_items = n_items
        inside = user[2:] == user[:-2]
        pair = items[:-2][inside] * n_items + items[1:-1][inside]
        self.pairs, number = np.unique(pair, return_inverse=True)
        triple, users = _shared(number * n_items + items[2:][inside], user[2:][inside])
        self.triples = triple[users < LEAST]

    def hold(self, first: Ints, second: Ints, third: Ints) -> NDArray[np.bool_]:
        """Whether three items in a row are among them; arrays of one shape."""
        if not len(self.triples):
            return np.zeros(third.shape, dtype=np.bool_)
        pair = first * self.n_items + second
        number = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        triple = number * self.n_items + third
        place = np.minimum(np.searchsorted(self.triples, triple), len(self.triples) - 1)
        found: NDArray[np.bool_] = (self.pairs[number] == pair) & (self.triples[place] == triple)
        return found


def learn_habits(
    items: Ints, offsets: Ints, times: Ints | None, n_items: int, clusters: int, rng: np.random.Generator
) -> Habits:
    """Count what the users of a log do.

    Args:
        items: (N,) int64 events, users one after the other, each in order of time; every item occurs.
        offsets: (U+1,) int64 first event of each user, and N; nobody without one.
        times: (N,) int64, or None.
        n_items: V.
        clusters: of users, at most; twice as many groups of items.
        rng: of what is drawn to find the clusters.
    """
    lengths = np.diff(offsets)
    user = np.repeat(np.arange(len(lengths)), lengths)
    pairs = np.unique(user * n_items + items)
    shape = len(lengths), n_items
    of_users, of_items = singular_vectors(pairs // n_items, pairs % n_items, shape, _WIDTH, rng)
    cluster = k_means(of_users, clusters, rng, least=LEAST)
    group = k_means(of_items, 2 * clusters, rng)
    n_clusters, n_groups = int(cluster.max()) + 1, int(group.max()) + 1
    own = cluster[user]

    having = cluster[pairs // n_items] * n_items + pairs % n_items
    having = np.bincount(having, minlength=n_clusters * n_items).reshape(n_clusters, n_items)
    shares, overall = _first_shares(having, np.bincount(cluster))
    by_group = np.argsort(group, kind="stable")
    steps = np.flatnonzero(user[1:] == user[:-1])
    chain = np.bincount(
        (own[steps] * n_groups + group[items[steps]]) * n_groups + group[items[steps + 1]],
        minlength=n_clusters * n_groups**2,
    ).reshape(n_clusters, n_groups, n_groups)
    group_shares = np.array([np.bincount(group, row, n_groups) for row in shares])
    lags = _lags(items, user, n_items)
    edges, bin_lift = _bins(items, times, n_items)
    return Habits(
        cluster=cluster,
        lengths=[np.sort(lengths[cluster == c]) for c in range(n_clusters)],
        group=group,
        by_group=by_group,
        group_start=np.concatenate(([0], np.cumsum(np.bincount(group, minlength=n_groups)))),
        items_upto=_stacked(shares[:, by_group]),
        first_group=_stacked(group_shares),
        next_group=_stacked(_chain_shares(chain, group_shares).reshape(-1, n_groups)),
        cluster_lift=(shares / overall).astype(np.float32),
        bin_edges=edges,
        bin_lift=bin_lift,
        steps=tuple(_steps(items, user, lags > 0, n_items, ahead) for ahead in _AHEAD),
        repeats=_repeats(lags > 0, np.arange(len(items)) - offsets[user], own, n_clusters),
        repeat_lags=np.sort(lags[lags > 0]),
    )


def bucket_of(numbers: Ints) -> Ints:
    """Whole numbers from 0 by size: 0, 1, 2-3, 4-7 and so on to 0, 1, 2, 3."""
    return np.frexp(numbers.astype(np.float64))[1].astype(np.int64)


def _stacked(shares: Floats) -> Floats:
    """Cumulative shares of each row, row r from r to r + 1: one array that rises from end to end."""
    upto = np.cumsum(shares, axis=1)
    upto /= upto[:, -1:]
    found: Floats = upto + np.arange(len(shares))[:, None]
    return found


def _first_shares(having: Ints, users: Ints) -> tuple[Floats, Floats]:
    """(C, V) how items a user has not had yet are drawn in each cluster, and (V,) in all.

    An item that a share s of the users has weighs -ln(1 - s): drawn by such weights without return, as many
    have it (successive sampling). By plain shares the most popular would be had by too few.
    """
    weights = -np.log1p(-having / (users[:, None] + 1))
    everyone = -np.log1p(-having.sum(axis=0) / (users.sum() + 1))
    weights /= weights.sum(axis=1, keepdims=True)
    everyone /= everyone.sum()
    return (1 - _SHARED) * weights + _SHARED * everyone, everyone


def _chain_shares(chain: NDArray[np.int64], group_shares: Floats) -> Floats:
    """(C, G, G): a cluster's steps between groups, filled up by those of all and by its groups' shares."""
    everyone = chain.sum(axis=0) + group_shares.mean(axis=0)
    everyone = everyone / everyone.sum(axis=1, keepdims=True)
    prior = 0.5 * everyone[None] + 0.5 * group_shares[:, None, :]
    filled = chain + prior * chain.shape[1]
    found: Floats = filled / filled.sum(axis=2, keepdims=True)
    return found


def _bins(items: Ints, times: Ints | None, n_items: int) -> tuple[Ints, NDArray[np.float32]]:
    if times is None:
        return np.zeros(0, dtype=np.int64), np.ones((1, n_items), dtype=np.float32)
    n_bins = max(1, min(_MOST_BINS, len(items) // (10 * n_items)))
    edges = np.unique(np.quantile(times, np.arange(1, n_bins) / n_bins, method="nearest").astype(np.int64))
    place = np.searchsorted(edges, times, side="right")
    n_bins = len(edges) + 1
    counts = np.bincount(place * n_items + items, minlength=n_bins * n_items).reshape(n_bins, n_items)
    # As if each item had an event more, spread as all are.
    spread = counts.sum(axis=1, keepdims=True) / len(items)
    lift = (counts + spread) / ((counts.sum(axis=0) + 1) * spread)
    return edges, lift.astype(np.float32)


def _steps(items: Ints, user: Ints, again: NDArray[np.bool_], n_items: int, most: int) -> Steps:
    """Steps to the events up to so many ahead that at least `LEAST` users took."""
    keys, users = [], []
    for ahead in range(1, most + 1):
        same = (user[:-ahead] == user[ahead:]) & (items[:-ahead] != items[ahead:])
        keys.append(items[:-ahead][same] * n_items + items[ahead:][same])
        users.append(user[ahead:][same])
    step, count = _shared(np.concatenate(keys), np.concatenate(users))
    met = np.bincount(step // n_items, count, n_items)
    kept = count >= LEAST
    step, weight = step[kept], count[kept] - _DISCOUNT
    share = np.bincount(step // n_items, weight, n_items) / np.maximum(met, 1)
    start = np.searchsorted(step, np.arange(n_items + 1) * n_items)
    back = np.flatnonzero((user[:-1] == user[1:]) & again[1:])
    taken = np.isin(items[back] * n_items + items[back + 1], step)
    backwards = np.bincount(items[back], minlength=n_items)
    share_back = np.bincount(items[back], taken, n_items) / np.maximum(backwards, 1)
    return Steps(start, step % n_items, np.cumsum(weight), share, share_back)


def _shared(keys: Ints, users: Ints) -> tuple[Ints, Ints]:
    """The distinct keys, rising, and how many users each has."""
    order = np.lexsort((users, keys))
    keys, users = keys[order], users[order]
    fresh = np.ones(len(keys), dtype=np.bool_)
    fresh[1:] = (keys[1:] != keys[:-1]) | (users[1:] != users[:-1])
    return np.unique(keys[fresh], return_counts=True)


def _lags(items: Ints, user: Ints, n_items: int) -> Ints:
    """(N,) events since the user had the item before; 0 where that never was."""
    order = np.argsort(user * n_items + items, kind="stable")
    again = (user[order][1:] == user[order][:-1]) & (items[order][1:] == items[order][:-1])
    lags = np.zeros(len(items), dtype=np.int64)
    lags[order[1:]] = np.where(again, order[1:] - order[:-1], 0)
    return lags


def _repeats(again: NDArray[np.bool_], place: Ints, own: Ints, n_clusters: int) -> Floats:
    """(C, K) how likely an event is of an item that the user had, by cluster and place."""
    bucket = bucket_of(place)
    width = int(bucket.max()) + 1
    cell = own * width + bucket
    events = np.bincount(cell, minlength=n_clusters * width).reshape(n_clusters, width)
    repeated = np.bincount(cell, again, n_clusters * width).reshape(n_clusters, width)
    # A cluster's places that few of its users reach are as everyone's.
    everyone = repeated.sum(axis=0) / np.maximum(events.sum(axis=0), 1)
    found: Floats = (repeated + everyone) / (events + 1)
    return found
