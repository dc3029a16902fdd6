"""A log in which an item's group decides everything, and some items of each group are new."""

import numpy as np

from recsys.datasets.schema import ITEM
from recsys.datasets.synthetic.draws import distinct_rows, steady_times, walk
from recsys.datasets.synthetic.logs import SyntheticLog, check, interactions
from recsys.datasets.synthetic.scores import expected_scores


def attribute_log(
    n_users: int = 1_500,
    n_items: int = 400,
    *,
    groups: int = 20,
    branching: int = 4,
    decay: float = 0.5,
    noise: float = 0.1,
    cold: float = 0.25,
    mean_length: float = 20.0,
    min_length: int = 5,
    width: int = 32,
    blur: float = 0.3,
    seed: int = 0,
) -> SyntheticLog:
    """Make a log in which groups of items follow a chain and items of a group are all alike.

    From each group lead ``branching`` steps to other groups, the r-th with probability proportional to
    decay^r; with probability ``noise`` the next group is any. Within a group every item is as likely as
    another, but a share of them, the cold ones, occurs as a last event alone. Nothing but its group says when
    a cold item is due: ``items`` has it as a tag, and ``vectors`` as a centroid besides noise. The best list
    of k items is any k of the likeliest group, cold or not, so ``best`` holds for cold and warm targets.

    Args:
        n_users: U.
        n_items: V, a multiple of ``groups``.
        groups: groups of equally many items, more than ``branching``.
        branching: successors of each group.
        decay: probability of a successor relative to the one before it, in (0, 1).
        noise: share of steps that ignore the rule, in [0, 1).
        cold: share of each group's items that occur as a last event alone, in [0, 1).
        mean_length: mean events a user; lengths are ``min_length`` plus a geometric number.
        min_length: least events a user, at least 3.
        width: p, of vectors.
        blur: deviation of an item's vector from its group's centroid, whose coordinates have one of 1.
        seed: decides everything.

    Raises:
        ArgumentError: an argument is out of range.
    """
    import polars as pl

    check(n_users >= 1, "n_users", n_users, "at least 1")
    check(1 <= branching < groups, "branching", branching, f"from 1 to groups - 1 ({groups - 1})")
    check(n_items >= groups and n_items % groups == 0, "n_items", n_items, f"a multiple of groups ({groups})")
    check(0 < decay < 1, "decay", decay, "between 0 and 1")
    check(0 <= noise < 1, "noise", noise, "in [0, 1)")
    check(0 <= cold < 1, "cold", cold, "in [0, 1)")
    check(min_length >= 3, "min_length", min_length, "at least 3")
    check(mean_length >= min_length, "mean_length", mean_length, f"at least min_length ({min_length})")
    check(width >= 1, "width", width, "at least 1")
    rng = np.random.default_rng(seed)
    each = n_items // groups
    warm = each - int(cold * each)
    successors = distinct_rows(groups, branching, rng)
    weights = decay ** np.arange(branching)
    weights = (1 - noise) * weights / weights.sum()
    lengths = min_length + rng.geometric(1 / (mean_length - min_length + 1), n_users) - 1
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    group = walk(offsets, groups, successors, np.cumsum(weights), rng)
    member = rng.integers(0, warm, len(group))
    last = offsets[1:] - 1
    member[last] = rng.integers(0, each, n_users)
    # Ids in random order, so that nothing but features tells an item's group.
    name = rng.permutation(n_items)
    group_of = np.empty(n_items, dtype=np.int64)
    group_of[name] = np.repeat(np.arange(groups), each)
    vectors = rng.normal(size=(groups, width))[group_of] + blur * rng.normal(size=(n_items, width))

    rest = noise / groups
    by_group = np.concatenate((weights + rest, np.full(groups - branching, rest)))
    found = successors[group[last - 1]] == group[last][:, None]
    rank = np.where(found.any(axis=1), found.argmax(axis=1), branching)
    met = np.bincount(rank, minlength=branching + 1) / n_users
    met = np.concatenate(
        (met[:branching], np.full(groups - branching, met[branching] / (groups - branching)))
    )
    return SyntheticLog(
        frame=interactions(lengths, name[group * each + member], steady_times(offsets, rng)),
        best=expected_scores(np.repeat(by_group / each, each)[None, :], np.ones(1)),
        drawn=expected_scores(np.repeat(met / each, each)[None, :], np.ones(1)),
        description=(
            f"Attributes: {n_users:,} users, {n_items:,} items in {groups} groups, {branching} successors"
            f" each with probabilities falling by {decay}, {noise:.0%} of steps uniform, {cold:.0%} of items"
            f" cold, seed {seed}"
        ),
        probabilities=np.broadcast_to(weights + rest, (groups, branching)),
        successors=successors,
        items=pl.DataFrame({ITEM: np.arange(n_items), "group": [f"group-{g}" for g in group_of]}),
        vectors=vectors.astype(np.float32),
    )
