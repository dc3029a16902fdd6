"""Keep the dense core of a log: users and items with enough events, over and over until nothing changes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """What a k-core filter kept.

    Attributes:
        keep: (N,) bool, one per event.
        rounds: passes that removed something.
        removed_events, removed_users, removed_items: how many.
    """

    keep: NDArray[np.bool_]
    rounds: int
    removed_events: int
    removed_users: int
    removed_items: int


def k_core(
    users: NDArray[np.int32], items: NDArray[np.int32], *, min_user_events: int = 0, min_item_events: int = 0
) -> Core:
    """Drop users and items with too few events until all that are left have enough.

    The result is the largest such set, so it does not depend on the order of removals (the k-core of the
    bipartite graph with repeated edges counted; Seidman 1983). Repeated events of a user with an item count
    each time.

    Args:
        users: (N,) int32 user index of each event, from 0.
        items: (N,) int32 item index of each event, from 0.
        min_user_events: events that a user needs; 0 or 1 keeps everyone.
        min_item_events: events that an item needs.

    Raises:
        ArgumentError: a minimum is negative.
    """
    for name, value in (("min_user_events", min_user_events), ("min_item_events", min_item_events)):
        if value < 0:
            raise ArgumentError(f"{name}={value} is negative: pass 0 to keep everything")
    keep = np.ones(len(users), dtype=bool)
    user_counts = np.bincount(users) if len(users) else np.zeros(0, dtype=np.int64)
    item_counts = np.bincount(items) if len(items) else np.zeros(0, dtype=np.int64)
    users_before, items_before = np.count_nonzero(user_counts), np.count_nonzero(item_counts)
    live_users, live_items = users, items
    where: NDArray[np.int64] | None = None  # places of the live events; None while all live
    rounds = 0
    while True:
        enough = (user_counts[live_users] >= min_user_events) & (item_counts[live_items] >= min_item_events)
        if enough.all():
            break
        rounds += 1
        where = np.flatnonzero(enough) if where is None else where[enough]
        live_users, live_items = live_users[enough], live_items[enough]
        user_counts = np.bincount(live_users, minlength=len(user_counts))
        item_counts = np.bincount(live_items, minlength=len(item_counts))
    if where is not None:
        keep[:] = False
        keep[where] = True
    return Core(
        keep=keep,
        rounds=rounds,
        removed_events=len(users) - len(live_users),
        removed_users=int(users_before - np.count_nonzero(user_counts)),
        removed_items=int(items_before - np.count_nonzero(item_counts)),
    )
