"""Made users' items, drawn from habits: all users of a block take their next step at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.synthetic.habits import Habits, RareTriples, bucket_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Chances = NDArray[np.float32]
Draw = Callable[[int, Ints], tuple[Ints, Chances]]

__all__ = ["walk_by_habit"]

_SEEN_AT_ONCE = 2**27
"""Bytes of the table of who had which item."""
_AT_ONCE = 8
"""Items that are drawn for each user at once; the first that may be is taken."""
_TRIES = 6
"""How often they are drawn before any item at all may be."""
_LAST_TRIES = 20
_CEILING = 4.0
"""An item so many times likelier than usual is always accepted, others in proportion."""


def walk_by_habit(
    habits: Habits,
    rare: RareTriples,
    cluster: Ints,
    lengths: Ints,
    bins: Ints,
    rng: np.random.Generator,
) -> Ints:
    """Draw the items of made users.

    Args:
        habits: of the log.
        rare: what no user may do.
        cluster: (U,) int64 of each made user.
        lengths: (U,) int64 events of each.
        bins: (N,) int64 bin of time of each event, users one after the other.
        rng: source of the draws.

    Returns:
        (N,) int64 items; -1 from where a user found no item that may follow.
    """
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    items = np.full(int(offsets[-1]), -1, dtype=np.int64)
    step = max(1, _SEEN_AT_ONCE // habits.n_items)
    for first in range(0, len(lengths), step):
        users = np.arange(first, min(first + step, len(lengths)))
        users = users[np.argsort(-lengths[users], kind="stable")]
        _Block(habits, rare, cluster[users], offsets[users], lengths[users], bins, items, rng).walk()
    return items


class _Block:
    """Users that walk together, the longest walk first, so that the living are a prefix."""

    def __init__(
        self,
        habits: Habits,
        rare: RareTriples,
        cluster: Ints,
        starts: Ints,
        lengths: Ints,
        bins: Ints,
        items: Ints,
        rng: np.random.Generator,
    ) -> None:
        self.habits, self.rare, self.rng = habits, rare, rng
        self.cluster, self.starts, self.lengths, self.bins, self.items = cluster, starts, lengths, bins, items
        self.seen = np.zeros((len(starts), habits.n_items), dtype=np.bool_)
        self.stuck = np.zeros(len(starts), dtype=np.bool_)

    def walk(self) -> None:
        for step in range(int(self.lengths[0])):
            living = int(np.searchsorted(-self.lengths, -step))
            who = np.flatnonzero(~self.stuck[:living])
            if not len(who):
                return
            found = np.full(len(who), -1, dtype=np.int64)
            if step:
                self._repeat(step, who, found)
            for _ in range(_TRIES):
                self._fill(step, who, found, self._usual)
            for _ in range(_LAST_TRIES):
                self._fill(step, who, found, self._any)
            self.stuck[who[found < 0]] = True
            who, found = who[found >= 0], found[found >= 0]
            self.items[self.starts[who] + step] = found
            self.seen[who, found] = True

    def _repeat(self, step: int, who: Ints, found: Ints) -> None:
        """Let some come back to what they had."""
        habits = self.habits
        bucket = min(int(bucket_of(np.array([step]))[0]), habits.repeats.shape[1] - 1)
        near = int(np.searchsorted(habits.repeat_lags, step, side="right"))
        if not near:
            return
        again = np.flatnonzero(self.rng.random(len(who)) < habits.repeats[self.cluster[who], bucket])
        # A step that many take, where it leads back; else so many events back as others go.
        here = self.items[self.starts[who[again]] + step - 1]
        ahead = habits.steps[0]
        stepping = np.flatnonzero(self.rng.random(len(again)) < ahead.share_back[here])
        users = who[again[stepping]]
        item = ahead.draw(np.repeat(here[stepping], _AT_ONCE), self.rng).reshape(-1, _AT_ONCE)
        may = self.seen[users[:, None], item] & ~self._rare(step, users, item)
        found[again[stepping]] = _first(item, may)
        again = again[found[again] < 0]
        for _ in range(_TRIES):
            lag = habits.repeat_lags[(self.rng.random(len(again)) * near).astype(np.int64)]
            item = self.items[self.starts[who[again]] + step - lag]
            may = ~self._rare(step, who[again], item[:, None])[:, 0]
            found[again[may]] = item[may]
            again = again[~may]

    def _fill(self, step: int, who: Ints, found: Ints, draw: Draw) -> None:
        """Draw items for those that have none yet."""
        open_ = np.flatnonzero(found < 0)
        if not len(open_):
            return
        users = who[open_]
        item, chance = draw(step, users)
        may = self.rng.random(item.shape) < chance
        may &= ~self.seen[users[:, None], item] & ~self._rare(step, users, item)
        found[open_] = _first(item, may)

    def _usual(self, step: int, users: Ints) -> tuple[Ints, Chances]:
        """Items by habit, and how likely each is to be accepted."""
        habits = self.habits
        cluster = self.cluster[users]
        if step:
            here = self.items[self.starts[users] + step - 1]
            row = cluster * habits.n_groups + habits.group[here]
            of_groups = self._of_groups(cluster, habits.next_group, row)
            of_steps, taken = self._by_steps(step, users)
            item = np.where(taken, of_steps, of_groups)
        else:
            item = self._of_groups(cluster, habits.first_group, cluster)
            taken = np.zeros(item.shape, dtype=np.bool_)
        lift = habits.bin_lift[self.bins[self.starts[users] + step][:, None], item]
        # Groups and their items are the cluster's own; steps are everyone's.
        lift = np.where(taken, lift * habits.cluster_lift[cluster[:, None], item], lift)
        return item, lift / np.float32(_CEILING)

    def _of_groups(self, cluster: Ints, groups: Floats, row: Ints) -> Ints:
        """(n, m) items: a group by a row of stacked shares, then an item of it by the cluster's."""
        habits, shape = self.habits, (len(cluster), _AT_ONCE)
        drawn = _of_stacked(groups, row[:, None], self.rng.random(shape))
        low, high = habits.group_start[drawn], habits.group_start[drawn + 1]
        upto, cluster = habits.items_upto, cluster[:, None]
        under = np.where(low > 0, upto[cluster, low - 1], cluster)
        within = under - cluster + self.rng.random(shape) * (upto[cluster, high - 1] - under)
        place = np.clip(_of_stacked(upto, cluster, within), low, high - 1)
        return habits.by_group[place]

    def _by_steps(self, step: int, users: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """(n, m) where steps lead that many take, and whether one was taken."""
        here = np.repeat(self.items[self.starts[users] + step - 1], _AT_ONCE)
        item, taken = np.zeros(len(here), dtype=np.int64), np.zeros(len(here), dtype=np.bool_)
        for steps in self.habits.steps:
            now = np.flatnonzero(~taken)
            now = now[self.rng.random(len(now)) < steps.share[here[now]]]
            item[now], taken[now] = steps.draw(here[now], self.rng), True
        return item.reshape(-1, _AT_ONCE), taken.reshape(-1, _AT_ONCE)

    def _any(self, step: int, users: Ints) -> tuple[Ints, Chances]:
        """Any items at all."""
        item = self.rng.integers(0, self.habits.n_items, (len(users), _AT_ONCE))
        return item, np.ones(item.shape, dtype=np.float32)

    def _rare(self, step: int, users: Ints, item: Ints) -> NDArray[np.bool_]:
        """Whether (n, m) items would end a rare triple."""
        if step < 2:
            return np.zeros(item.shape, dtype=np.bool_)
        places = self.starts[users] + step
        first, second = self.items[places - 2][:, None], self.items[places - 1][:, None]
        return self.rare.hold(np.broadcast_to(first, item.shape), np.broadcast_to(second, item.shape), item)


def _first(item: Ints, may: NDArray[np.bool_]) -> Ints:
    """(n,) the first of each row that may be; -1 where none may."""
    place, rows = may.argmax(axis=1), np.arange(len(item))
    return np.where(may[rows, place], item[rows, place], -1)


def _of_stacked(stacked: Floats, row: Ints, drawn: Floats) -> Ints:
    """Where numbers from 0 to 1 fall among cumulative shares, each in its row of them."""
    width = stacked.shape[1]
    flat = np.searchsorted(stacked.ravel(), row + drawn, side="right")
    found: Ints = np.clip(flat - row * width, 0, width - 1)
    return found
