"""A log of users who keep to one group of items, and foreign events among what they took before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys.datasets.schema import ITEM, TIMESTAMP, USER
from recsys.datasets.synthetic.draws import START_S
from recsys.datasets.synthetic.logs import check

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DenoiseLog", "denoise_log"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenoiseLog:
    """A made log and what in it is noise.

    Attributes:
        frame: interactions.
        foreign: bool, for each row whether its item is of another group than its user's.
        items: ``item_id`` and ``group``.
        best: HR@10 of a list of items of the user's group.
    """

    frame: "pl.DataFrame"
    foreign: "pl.Series"
    items: "pl.DataFrame"
    best: float


def denoise_log(
    n_users: int = 600,
    n_items: int = 400,
    *,
    groups: int = 20,
    length: int = 12,
    noise: float = 0.3,
    held_out: int = 2,
    seed: int = 0,
) -> DenoiseLog:
    """Make a log in which each user takes items of one group, all alike, and some of others by accident.

    The foreign items of a user are each of another group, so that they are never alike, and stand among all
    but the last events.

    Args:
        n_users: U.
        n_items: V, a multiple of ``groups``.
        groups: of items.
        length: events of each user in its own group, more than ``held_out`` + 2.
        noise: share of foreign events among those that train, in [0, 1).
        held_out: last events of each user, none of which is foreign, at least 2.
        seed: decides everything.

    Raises:
        ArgumentError: an argument is out of range, or there are fewer groups than foreign events of a user.
    """
    import polars as pl

    check(n_users >= 1, "n_users", n_users, "at least 1")
    check(n_items >= groups and n_items % groups == 0, "n_items", n_items, f"a multiple of groups ({groups})")
    check(held_out >= 2, "held_out", held_out, "at least 2")
    check(length > held_out + 2, "length", length, f"more than held_out + 2 ({held_out + 2})")
    check(0 <= noise < 1, "noise", noise, "in [0, 1)")
    foreign_each = round((length - held_out) * noise / (1 - noise))
    check(groups > foreign_each, "groups", groups, f"more than a user's foreign events ({foreign_each})")
    rng = np.random.default_rng(seed)
    each, total = n_items // groups, length + foreign_each
    own = rng.integers(0, groups, n_users)
    # Of every user's places that train, those of foreign events are drawn; the first is its own.
    draw = rng.random((n_users, total))
    draw[:, 0], draw[:, total - held_out :] = 2.0, 2.0
    foreign = np.argsort(np.argsort(draw, axis=1), axis=1) < foreign_each
    others = (own[:, None] + 1 + np.argsort(rng.random((n_users, groups - 1)), axis=1)) % groups
    group = np.repeat(own[:, None], total, axis=1)
    group[foreign] = others[:, :foreign_each].ravel()
    items = group * each + rng.integers(0, each, group.shape)
    return DenoiseLog(
        frame=pl.DataFrame(
            {
                USER: np.repeat(np.arange(n_users), total),
                ITEM: items.ravel(),
                TIMESTAMP: START_S + 60 * np.arange(items.size),
            }
        ),
        foreign=pl.Series(foreign.ravel()),
        items=pl.DataFrame(
            {ITEM: np.arange(n_items), "group": [f"group-{i // each}" for i in range(n_items)]}
        ),
        best=min(1.0, 10 / each),
    )
