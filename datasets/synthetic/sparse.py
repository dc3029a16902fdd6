"""A log in which items are too rare to be learned one by one, and their groups are not."""

import numpy as np

from recsys.datasets.schema import ITEM, TIMESTAMP, USER
from recsys.datasets.synthetic.draws import START_S
from recsys.datasets.synthetic.logs import SyntheticLog, check
from recsys.datasets.synthetic.scores import expected_scores

__all__ = ["sparse_log"]


def sparse_log(
    n_users: int = 500,
    n_items: int = 2_000,
    *,
    groups: int = 100,
    length: int = 12,
    seed: int = 0,
) -> SyntheticLog:
    """Make a log of few events for each item.

    Groups of items follow one another in a ring, in an order of chance, and every user goes round a part of
    it. Within a group items are dealt so that each has as many training events as another, as far as that
    goes: ``n_users * (length - 2) / n_items``, rounded up, at most. The last two events of a user are of any
    item of their group. The best list is any of items of the next group.

    Args:
        n_users: U, a multiple of ``groups``, so that all groups are met alike.
        n_items: V, a multiple of ``groups``.
        groups: of items, at least 2.
        length: events of each user, at least 3.
        seed: decides everything.

    Raises:
        ArgumentError: an argument is out of range.
    """
    import polars as pl

    check(groups >= 2, "groups", groups, "at least 2")
    check(n_users >= groups and n_users % groups == 0, "n_users", n_users, f"a multiple of groups ({groups})")
    check(n_items >= groups and n_items % groups == 0, "n_items", n_items, f"a multiple of groups ({groups})")
    check(length >= 3, "length", length, "at least 3")
    rng = np.random.default_rng(seed)
    each, met = n_items // groups, n_users * (length - 2) // groups
    ring = rng.permutation(groups)
    place = (np.arange(n_users)[:, None] + np.arange(length)) % groups
    group = ring[place[rng.permutation(n_users)]]
    # Of each group every member comes before one of them comes again.
    rounds = -(-met // each)
    dealt = rng.permuted(np.broadcast_to(np.arange(each), (groups, rounds, each)), axis=2)
    dealt = dealt.reshape(groups, -1)[:, :met]
    trained = group[:, :-2].ravel()
    deal = np.empty(len(trained), dtype=np.int64)
    # Which of a group's events takes which member is of chance, so that rounds do not follow the users.
    deal[np.argsort(trained, kind="stable")] = rng.permuted(dealt, axis=1).ravel()
    member = rng.integers(0, each, group.shape)
    member[:, :-2] = deal.reshape(n_users, -1)
    name = rng.permutation(n_items)
    members = np.repeat(np.arange(groups), each)
    group_of = np.empty(n_items, dtype=np.int64)
    group_of[name] = members
    successors = np.empty((groups, 1), dtype=np.int64)
    successors[ring, 0] = np.roll(ring, -1)
    chance = np.repeat(np.eye(groups)[0] / each, each)
    scores = expected_scores(chance[None, :], np.ones(1))
    return SyntheticLog(
        frame=pl.DataFrame(
            {
                USER: np.repeat(np.arange(n_users), length),
                ITEM: name[(group * each + member).ravel()],
                TIMESTAMP: START_S + 60 * np.arange(group.size),
            }
        ),
        best=scores,
        drawn=scores,
        description=(
            f"Sparse: {n_users:,} users, {n_items:,} items in {groups} groups that follow in a ring, at most"
            f" {rounds} training events an item, seed {seed}"
        ),
        probabilities=np.ones((groups, 1)),
        successors=successors,
        items=pl.DataFrame({ITEM: np.arange(n_items), "group": [f"group-{g}" for g in group_of]}),
    )
