"""A log of what was taken of what was shown, in which what is shown most is wanted least."""

from typing import TYPE_CHECKING

import numpy as np

from recsys.datasets.schema import ITEM, TIMESTAMP, USER
from recsys.datasets.synthetic.draws import START_S
from recsys.datasets.synthetic.logs import check

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SHOWN", "slate_log"]

SHOWN = "shown"
"""Column of what was shown."""


def slate_log(
    n_users: int = 1_000,
    n_items: int = 20,
    *,
    length: int = 20,
    slate: int = 4,
    skew: float = 10.0,
    preference: float = 2.0,
    nothing: float = 0.0,
    seed: int = 0,
) -> "pl.DataFrame":
    """Make a log of slates.

    The items of the first half are shown ``skew`` times as often as those of the second, and wanted 1 to
    ``preference`` where both are shown. Of a slate an item is taken in proportion to how much it is wanted,
    and nothing in proportion to ``nothing``, whatever the user took before. The best scores of items of the
    second half lie log(preference) above the others, and that of nothing log(nothing).

    Args:
        n_users: U.
        n_items: V, even.
        length: slates of each user, at least 3.
        slate: items shown at once, from 2 to half of the items.
        skew: above 0.
        preference: above 0.
        nothing: 0 or more.
        seed: decides everything.

    Returns:
        Interactions ``user_id``, ``item_id`` (null where nothing was taken) and ``timestamp``, and ``shown``,
        lists of items.

    Raises:
        ArgumentError: an argument is out of range.
    """
    import polars as pl

    check(n_users >= 1, "n_users", n_users, "at least 1")
    check(n_items >= 4 and n_items % 2 == 0, "n_items", n_items, "even and at least 4")
    check(length >= 3, "length", length, "at least 3")
    check(2 <= slate <= n_items // 2, "slate", slate, f"from 2 to n_items / 2 ({n_items // 2})")
    check(skew > 0, "skew", skew, "above 0")
    check(preference > 0, "preference", preference, "above 0")
    check(nothing >= 0, "nothing", nothing, "0 or more")
    rng = np.random.default_rng(seed)
    rare = np.arange(n_items) >= n_items // 2
    rows = n_users * length
    # The largest of log weights with Gumbel noise: a draw without replacement in proportion to the weights.
    exposure = np.where(rare, 0.0, np.log(skew)) + rng.gumbel(size=(rows, n_items))
    shown = np.argsort(-exposure, axis=1)[:, :slate]
    wish = np.where(rare, np.log(preference), 0.0)[shown] + rng.gumbel(size=shown.shape)
    taken = shown[np.arange(rows), wish.argmax(axis=1)]
    none = np.zeros(rows, dtype=bool)
    if nothing:
        none = np.log(nothing) + rng.gumbel(size=rows) > wish.max(axis=1)
    return pl.DataFrame(
        {
            USER: np.repeat(np.arange(n_users), length),
            ITEM: pl.Series(taken).set(pl.Series(none), None),
            TIMESTAMP: START_S + 60 * np.arange(rows),
            SHOWN: shown.tolist(),
        }
    )
