"""Logs in which a further column of an event decides: what was done with an item, or whether it counts."""

import numpy as np
import polars as pl

from recsys.datasets.synthetic.draws import steady_times
from recsys.datasets.synthetic.logs import SyntheticLog, check, interactions
from recsys.datasets.synthetic.scores import expected_scores, scores_of_ranks

__all__ = ["action_log", "noisy_log"]


def action_log(
    n_users: int = 1_000,
    n_items: int = 60,
    *,
    noise: float = 0.1,
    mean_length: float = 20.0,
    min_length: int = 5,
    seed: int = 0,
) -> SyntheticLog:
    """Make a log in which an item and what was done with it decide the next item together.

    Each event is a "view" or a "buy", by a fair coin. After a view of item i comes A(i), after a buy B(i), A
    and B permutations that agree nowhere; with probability ``noise`` the next item is any at all. Who does
    not read the action cannot tell A(i) from B(i).

    Args:
        n_users: U.
        n_items: V, at least 3.
        noise: share of steps that ignore the rule, in [0, 1).
        mean_length: mean events a user; lengths are ``min_length`` plus a geometric number.
        min_length: least events a user, at least 3.
        seed: decides everything.

    Raises:
        ArgumentError: an argument is out of range.
    """
    lengths, offsets, rng = _users(n_users, n_items, noise, mean_length, min_length, seed)
    nexts = _permutations(n_items, rng)
    bought = rng.integers(0, 2, int(offsets[-1]))
    items = _walk(offsets, nexts, bought, noise, rng)
    last = offsets[1:] - 1
    wanted = nexts[bought[last - 1], items[last - 1]]
    ranks = np.where(items[last] == wanted, 0.0, np.inf)
    rest = np.full(n_items, noise / n_items)
    known, unknown = rest.copy(), rest.copy()
    known[0] += 1 - noise
    unknown[:2] += (1 - noise) / 2
    frame = interactions(lengths, items, steady_times(offsets, rng))
    return SyntheticLog(
        frame=frame.with_columns(pl.Series("action", np.array(["view", "buy"])[bought])),
        best=expected_scores(known[None, :], np.ones(1)),
        without_column=expected_scores(unknown[None, :], np.ones(1)),
        drawn=scores_of_ranks(ranks, noise_rest=n_items - 1, first_free=1),
        description=(
            f"Actions: {n_users:,} users, {n_items:,} items, the next by the last item and what was done with"
            f" it, {noise:.0%} of steps uniform, seed {seed}"
        ),
        probabilities=known[None, :],
        successors=nexts.T,
    )


def noisy_log(
    n_users: int = 1_000,
    n_items: int = 60,
    *,
    bait: float = 0.6,
    noise: float = 0.1,
    mean_length: float = 20.0,
    min_length: int = 5,
    seed: int = 0,
) -> SyntheticLog:
    """Make a log most of whose events should not be learned from, and say so.

    After item i comes C(i) with probability ``bait``, an event of weight 0, and else T(i), one of weight 1; C
    and T are permutations that agree nowhere, and with probability ``noise`` the next item is any at all. A
    user's last two events are of weight 1: what is wanted is T.

    Args:
        n_users: U.
        n_items: V, at least 3.
        bait: share of events that do not count, in [0, 1).
        noise: share of steps that ignore the rule, in [0, 1).
        mean_length: mean events a user; lengths are ``min_length`` plus a geometric number.
        min_length: least events a user, at least 3.
        seed: decides everything.

    Raises:
        ArgumentError: an argument is out of range.
    """
    check(0 <= bait < 1, "bait", bait, "in [0, 1)")
    lengths, offsets, rng = _users(n_users, n_items, noise, mean_length, min_length, seed)
    nexts = _permutations(n_items, rng)
    true = (rng.random(int(offsets[-1])) >= bait).astype(np.int64)
    true[offsets[1:] - 1] = true[offsets[1:] - 2] = 1
    # A step's kind is that of the event it leads to.
    items = _walk(offsets, nexts, np.append(true[1:], 1), noise, rng)
    last = offsets[1:] - 1
    ranks = np.where(items[last] == nexts[1, items[last - 1]], 0.0, np.inf)
    rest = np.full(n_items, noise / n_items)
    known, mistaken = rest.copy(), rest.copy()
    known[0] += 1 - noise
    mistaken[int(bait > 0.5)] += 1 - noise
    frame = interactions(lengths, items, steady_times(offsets, rng))
    return SyntheticLog(
        frame=frame.with_columns(pl.Series("weight", true.astype(np.float64))),
        best=expected_scores(known[None, :], np.ones(1)),
        without_column=expected_scores(mistaken[None, :], np.ones(1)),
        drawn=scores_of_ranks(ranks, noise_rest=n_items - 1, first_free=1),
        description=(
            f"Bait: {n_users:,} users, {n_items:,} items, {bait:.0%} of events of no weight, {noise:.0%} of"
            f" steps uniform, seed {seed}"
        ),
        probabilities=known[None, :],
        successors=nexts.T,
    )


def _users(
    n_users: int, n_items: int, noise: float, mean_length: float, min_length: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Lengths and offsets of users, and the generator that drew them."""
    check(n_users >= 1, "n_users", n_users, "at least 1")
    check(n_items >= 3, "n_items", n_items, "at least 3")
    check(0 <= noise < 1, "noise", noise, "in [0, 1)")
    check(min_length >= 3, "min_length", min_length, "at least 3")
    check(mean_length >= min_length, "mean_length", mean_length, f"at least min_length ({min_length})")
    rng = np.random.default_rng(seed)
    lengths = min_length + rng.geometric(1 / (mean_length - min_length + 1), n_users) - 1
    return lengths, np.concatenate(([0], np.cumsum(lengths))), rng


def _permutations(n_items: int, rng: np.random.Generator) -> np.ndarray:
    """(2, V) int64 next items of either kind: one cycle through all items, forward and backward."""
    cycle = rng.permutation(n_items)
    nexts = np.empty((2, n_items), dtype=np.int64)
    nexts[0, cycle], nexts[1, cycle] = np.roll(cycle, -1), np.roll(cycle, 1)
    return nexts


def _walk(
    offsets: np.ndarray, nexts: np.ndarray, kinds: np.ndarray, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Items of all users: after the event at place p comes the next item of kind kinds[p]."""
    n_items = nexts.shape[1]
    lengths = np.diff(offsets)
    items = rng.integers(0, n_items, int(offsets[-1]))
    anywhere = rng.random(len(items)) < noise
    for step in range(1, int(lengths.max())):
        place = offsets[:-1][lengths > step] + step
        follows = nexts[kinds[place - 1], items[place - 1]]
        items[place] = np.where(anywhere[place], items[place], follows)
    return items
