"""A log of what people took of what they were shown, and tests of what they would take of anything."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.datasets.schema import ITEM, TIMESTAMP, USER
from recsys.datasets.synthetic.draws import START_S
from recsys.datasets.synthetic.logs import check

__all__ = ["ExposureLog", "exposure_log"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExposureLog:
    """A made log and a second last event of each of its users.

    Attributes:
        frame: interactions whose last event of each user was taken of items shown as before.
        uniform: the same but for the last events, taken of items that were all shown alike.
        exposure: (V,) float64 how often each item is shown, in proportion.
    """

    frame: pl.DataFrame
    uniform: pl.DataFrame
    exposure: np.ndarray


def exposure_log(
    n_users: int = 2_000,
    n_items: int = 100,
    *,
    groups: int = 4,
    length: int = 12,
    skew: float = 1.5,
    seed: int = 0,
) -> ExposureLog:
    """Make a log in which an item is taken as often as it is shown and wanted.

    A user of a group wants the items of it nine times as much as others. An item is shown in proportion to
    rank^-skew, in an order that has nothing to do with groups; taken is exposure times wish.

    Args:
        n_users: U.
        n_items: V, a multiple of ``groups``.
        groups: of users and items.
        length: events of each user, at least 3.
        skew: of the exposure, 0 or more.
        seed: decides everything.

    Raises:
        ArgumentError: an argument is out of range.
    """
    check(n_users >= 1, "n_users", n_users, "at least 1")
    check(groups >= 1, "groups", groups, "at least 1")
    check(n_items >= groups and n_items % groups == 0, "n_items", n_items, f"a multiple of groups ({groups})")
    check(length >= 3, "length", length, "at least 3")
    check(skew >= 0, "skew", skew, "0 or more")
    rng = np.random.default_rng(seed)
    exposure = np.arange(1, n_items + 1, dtype=np.float64) ** -skew
    group = rng.integers(0, groups, n_users)
    wish = np.where(np.arange(n_items) % groups == np.arange(groups)[:, None], 9.0, 1.0)
    items = np.empty((n_users, length), dtype=np.int64)
    last = np.empty(n_users, dtype=np.int64)
    for own in range(groups):
        users = np.flatnonzero(group == own)
        taken = wish[own] * exposure
        items[users] = rng.choice(n_items, (len(users), length), p=taken / taken.sum())
        last[users] = rng.choice(n_items, len(users), p=wish[own] / wish[own].sum())
    uniform = items.copy()
    uniform[:, -1] = last
    frames = [
        pl.DataFrame(
            {
                USER: np.repeat(np.arange(n_users), length),
                ITEM: taken_items.ravel(),
                TIMESTAMP: START_S + 60 * np.arange(n_users * length),
            }
        )
        for taken_items in (items, uniform)
    ]
    return ExposureLog(frame=frames[0], uniform=frames[1], exposure=exposure)
