"""Logs made by a known rule, so that the best score that any recommender can expect is known exactly.

Scores are those of leave-one-out with each user's last event as the test item, every item a candidate and
items of the history kept (these users do return to items).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.folders import write_error
from recsys.datasets.prepared.writer import write_parquet
from recsys.datasets.schema import ITEM, TIMESTAMP, USER
from recsys.datasets.synthetic.draws import (
    DAY_S,
    START_S,
    distinct_rows,
    steady_times,
    walk,
    within_users,
)
from recsys.datasets.synthetic.scores import expected_scores, scores_of_ranks
from recsys.errors import ArgumentError

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SyntheticLog:
    """A made log and what is known of it.

    Attributes:
        frame: Interactions: ``user_id``, ``item_id`` int64 from 0, ``timestamp`` int64; sorted, no ties. Of
            `action_log` with a column ``action``, of `noisy_log` with a column ``weight``.
        best: expected scores of the recommender that knows the rule: ``hr@k``, ``ndcg@k``, ``mrr@k``.
        without_clock: the same without the hour of the request, where the rule depends on it; else None.
        without_column: the same without the column of `action_log` or `noisy_log`; else None.
        drawn: scores of that recommender on this very draw; they differ from ``best`` by chance alone.
        description: the rule in one line.
        probabilities: the rule itself. For `markov_log` (V, branching) float64 beside ``successors``;
            for `clock_log` (groups, parts of the day, V) float64; for `attribute_log` (groups, branching),
            as for `sparse_log`.
        successors: (V, branching) int64 next items, most likely first, or for `attribute_log` and
            `sparse_log` next groups;
            None for `clock_log`.
        user_group: (U,) int64 group of each user; of `clock_log` alone.
        items: a row for each item, ``item_id`` and ``group``; of these two alone.
        vectors: (V, p) float32 in the order of these rows; of `attribute_log` alone.
    """

    frame: "pl.DataFrame"
    best: dict[str, float]
    drawn: dict[str, float]
    description: str
    probabilities: Floats
    successors: Ints | None = None
    without_clock: dict[str, float] | None = None
    without_column: dict[str, float] | None = None
    user_group: Ints | None = None
    items: "pl.DataFrame | None" = None
    vectors: NDArray[np.float32] | None = None

    def write(self, path: str | Path) -> Path:
        """Write the log as Parquet, whole or not at all.

        Raises:
            DataError: the file cannot be written.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_parquet(self.frame, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(target, error) from None
        return target


def markov_log(
    n_users: int = 1_000,
    n_items: int = 200,
    *,
    mean_length: float = 30.0,
    min_length: int = 5,
    branching: int = 20,
    decay: float = 0.8,
    noise: float = 0.1,
    seed: int = 0,
) -> SyntheticLog:
    """Make a log in which the last item alone decides what may come next.

    From each item lead ``branching`` steps to distinct items, the r-th with probability proportional to
    decay^r; with probability ``noise`` the next item is any item at all, uniformly. The best list of k items
    is the k likeliest successors, whatever the history before.

    Args:
        n_users: U.
        n_items: V, more than ``branching``.
        mean_length: mean events a user; lengths are ``min_length`` plus a geometric number.
        min_length: least events a user, at least 3.
        branching: successors of each item.
        decay: probability of a successor relative to the one before it, in (0, 1).
        noise: share of steps that ignore the rule, in [0, 1).
        seed: decides everything.

    Raises:
        ArgumentError: an argument is out of range.
    """
    check(n_users >= 1, "n_users", n_users, "at least 1")
    check(1 <= branching < n_items, "branching", branching, f"from 1 to n_items - 1 ({n_items - 1})")
    check(0 < decay < 1, "decay", decay, "between 0 and 1")
    check(0 <= noise < 1, "noise", noise, "in [0, 1)")
    check(min_length >= 3, "min_length", min_length, "at least 3")
    check(mean_length >= min_length, "mean_length", mean_length, f"at least min_length ({min_length})")
    rng = np.random.default_rng(seed)
    successors = distinct_rows(n_items, branching, rng)
    weights = decay ** np.arange(branching)
    weights = (1 - noise) * weights / weights.sum()
    lengths = min_length + rng.geometric(1 / (mean_length - min_length + 1), n_users) - 1
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    items = walk(offsets, n_items, successors, np.cumsum(weights), rng)

    by_rank = weights + noise / n_items  # of the r-th best item, r < branching
    by_rank = np.concatenate((by_rank, np.full(n_items - branching, noise / n_items)))
    last, before = items[offsets[1:] - 1], items[offsets[1:] - 2]
    found = successors[before] == last[:, None]
    # Items that are no successor are all alike, so an ideal list holds one at any of the places left.
    spread = np.full(n_users, np.inf)
    ranks = np.where(found.any(axis=1), found.argmax(axis=1), spread)
    frame = interactions(lengths, items, steady_times(offsets, rng))
    return SyntheticLog(
        frame=frame,
        best=expected_scores(by_rank[None, :], np.ones(1)),
        drawn=scores_of_ranks(ranks, noise_rest=n_items - branching, first_free=branching),
        description=(
            f"Markov chain: {n_users:,} users, {n_items:,} items, {branching} successors each with"
            f" probabilities falling by {decay}, {noise:.0%} of steps uniform, seed {seed}"
        ),
        probabilities=np.broadcast_to(weights + noise / n_items, (n_items, branching)),
        successors=successors,
    )


def clock_log(
    n_users: int = 1_000,
    n_items: int = 200,
    *,
    groups: int = 2,
    parts: int = 6,
    mean_length: float = 30.0,
    min_length: int = 5,
    decay: float = 0.8,
    noise: float = 0.1,
    utc_offset_hours: float = 0.0,
    seed: int = 0,
) -> SyntheticLog:
    """Make a log in which the local hour and the user's group decide the item, and nothing else does.

    The day has ``parts`` equal parts. In each part a group prefers the items in an order of its own: the
    r-th with probability proportional to decay^r, besides ``noise`` spread over all items. Each event falls
    on a later day than the one before it at an hour drawn anew, so history tells the group but never the
    hour. Both best scores take the group as known, which a history of some events shows.

    Args:
        n_users: U.
        n_items: V.
        groups: kinds of users.
        parts: parts of the day; divides 24.
        mean_length: mean events a user; lengths are ``min_length`` plus a geometric number.
        min_length: least events a user, at least 3.
        decay: probability of an item relative to the one preferred before it, in (0, 1).
        noise: share of events that ignore the rule, in [0, 1).
        utc_offset_hours: local time minus UTC, in hours, from -14 to 14.
        seed: decides everything.

    Raises:
        ArgumentError: an argument is out of range.
    """
    check(n_users >= 1, "n_users", n_users, "at least 1")
    check(n_items >= 2, "n_items", n_items, "at least 2")
    check(groups >= 1, "groups", groups, "at least 1")
    check(parts >= 1 and 24 % parts == 0, "parts", parts, "a divisor of 24")
    check(0 < decay < 1, "decay", decay, "between 0 and 1")
    check(0 <= noise < 1, "noise", noise, "in [0, 1)")
    check(min_length >= 3, "min_length", min_length, "at least 3")
    check(mean_length >= min_length, "mean_length", mean_length, f"at least min_length ({min_length})")
    check(-14 <= utc_offset_hours <= 14, "utc_offset_hours", utc_offset_hours, "from -14 to 14")
    rng = np.random.default_rng(seed)
    weights = decay ** np.arange(n_items)
    weights = (1 - noise) * weights / weights.sum() + noise / n_items
    order = rng.permuted(np.broadcast_to(np.arange(n_items), (groups, parts, n_items)), axis=-1)
    probabilities = np.empty((groups, parts, n_items))
    np.put_along_axis(probabilities, order, np.broadcast_to(weights, order.shape), axis=-1)

    user_group = rng.integers(groups, size=n_users)
    lengths = min_length + rng.geometric(1 / (mean_length - min_length + 1), n_users) - 1
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    n_events = int(offsets[-1])
    part = rng.integers(parts, size=n_events)
    rank = np.searchsorted(np.cumsum(weights), rng.random(n_events) * weights.sum(), side="right")
    group = np.repeat(user_group, lengths)
    items = order[group, part, np.minimum(rank, n_items - 1)]

    part_s = DAY_S // parts
    days = within_users(rng.integers(1, 3, n_events), offsets) + np.repeat(
        rng.integers(0, 365, n_users), lengths
    )
    local = days * DAY_S + part * part_s + rng.integers(0, part_s, n_events)
    timestamps = START_S + local - round(utc_offset_hours * 3_600)

    last = offsets[1:] - 1
    sorted_marginal = -np.sort(-probabilities.mean(axis=1), axis=-1)
    shares = np.bincount(user_group, minlength=groups) / n_users
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(n_items), order.shape), axis=-1)
    return SyntheticLog(
        frame=interactions(lengths, items, timestamps),
        best=expected_scores(weights[None, :], np.ones(1)),
        drawn=scores_of_ranks(places[user_group, part[last], items[last]].astype(np.float64)),
        without_clock=expected_scores(sorted_marginal, shares),
        description=(
            f"Clock habits: {n_users:,} users in {groups} groups, {n_items:,} items, {parts} parts of the day"
            f" at UTC{utc_offset_hours:+g} h, preference falling by {decay}, {noise:.0%} uniform, seed {seed}"
        ),
        probabilities=probabilities,
        user_group=user_group,
    )


def check(holds: bool, name: str, value: float, wanted: str) -> None:
    """Refuse an argument that is out of range."""
    if not holds:
        raise ArgumentError(f"{name}={value} is out of range: it must be {wanted}")


def interactions(lengths: Ints, items: Ints, timestamps: Ints) -> "pl.DataFrame":
    """The frame of a log whose users' events lie one after the other."""
    import polars as pl

    return pl.DataFrame(
        {
            USER: np.repeat(np.arange(len(lengths), dtype=np.int64), lengths),
            ITEM: items,
            TIMESTAMP: timestamps.astype(np.int64),
        }
    )
