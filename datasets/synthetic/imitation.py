"""A log that resembles another and holds nothing of anyone in it, to share where that one may not be."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.keywords import refuse_unknown, takes
from recsys.datasets.preparing.events import load_events, sort_events
from recsys.datasets.reading.logs import open_log
from recsys.datasets.reading.options import ReadKeywords, ReadOptions
from recsys.datasets.schema import ITEM, POSITION, TIMESTAMP, USER
from recsys.datasets.sources.finding import find_source
from recsys.datasets.synthetic.habit_times import draw_times, learn_rhythm
from recsys.datasets.synthetic.habit_walk import walk_by_habit
from recsys.datasets.synthetic.habits import LEAST, RareTriples, learn_habits
from recsys.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import polars as pl

Ints = NDArray[np.int64]

__all__ = ["like"]

_PILOT = 2_000
"""Users that walk first, to see which items habits together lead to too often."""
_FARTHEST = 4.0
_SLACK = 5.0
_CLUSTERS = 32
_USERS_EACH = 40


@takes(ReadOptions)
def like(
    log: Any,
    *,
    users: int | None = None,
    clusters: int | None = None,
    seed: int = 0,
    notify: Callable[[str], None] | None = None,
    **options: Unpack[ReadKeywords],
) -> "pl.DataFrame":
    """Make a log whose statistics are those of another.

    Users are clustered by what they took. A made user belongs to a cluster and has of it: how many events,
    how often an item comes back, which groups of items follow which, and how popular each item is; of all
    users: after how many events an item comes back, the steps from item to item that at least three took, the
    gaps between events, and how popular items are at what time. Ids are new and in an order of chance.

    Nothing that fewer than three users did is there: no three events in a row of the made log are three
    in a row of one or two users of the log. Which items there are and how popular each is does show,
    and so does what many users do; that is no proof of privacy in the sense of Dwork et al. 2006.

    Memory is some hundred bytes an event, and clusters x items numbers.

    Args:
        log: path, known name, or a log in memory, as `recsys.prepare` takes it.
        users: how many to make; None for as many as there are.
        clusters: of users, at most; None for one for every 40 users, 2 to 32.
        seed: decides everything.
        notify: receives lines worth showing: where a known log was fetched from, how far it is.
        options: the fields of `recsys.datasets.reading.options.ReadOptions` (how the log is read).

    Returns:
        Interactions: ``user_id``, ``item_id`` int64 from 0, ``timestamp`` int64 (or ``position``, where the
        log has no times), sorted by user, then time.

    Raises:
        ArgumentError: an option is unknown or out of range.
        DataError: the log is bad, or has fewer than three users.
    """
    import polars as pl

    for name, value, lowest in (("users", users, 1), ("clusters", clusters, 1), ("seed", seed, 0)):
        whole = value is None or (isinstance(value, int) and not isinstance(value, bool))
        if not whole or (value is not None and value < lowest):
            raise ArgumentError(f"{name}={value!r} must be a whole number of at least {lowest}")
    refuse_unknown(options, ReadOptions)
    say = notify or (lambda line: None)
    source = find_source(log, notify)
    with tempfile.TemporaryDirectory() as scratch:
        checked = open_log(source.log, ReadOptions(**options))
        events = sort_events(load_events(checked, Path(scratch)))
    offsets = events.offsets()
    n_users, n_items = len(offsets) - 1, events.item_ids.len()
    if n_users < LEAST:
        raise DataError(
            f"{source.file}: has {n_users} users; nothing that {LEAST} of them share can be imitated"
        )
    say(f"{source.file}: {len(events.users):,} events, {n_users:,} users, {n_items:,} items")
    rng = np.random.default_rng(seed)
    items, times = events.items.astype(np.int64), events.timestamps
    most = clusters or max(2, min(_CLUSTERS, n_users // _USERS_EACH))
    habits = learn_habits(items, offsets, times, n_items, most, rng)
    say(f"what users do was learned, in {len(habits.lengths):,} clusters")
    made = rng.choice(habits.cluster, users or n_users)
    lengths = np.empty(len(made), dtype=np.int64)
    for number, those in enumerate(habits.lengths):
        mine = made == number
        lengths[mine] = rng.choice(those, int(mine.sum()))
    when, bins = None, np.zeros(int(lengths.sum()), dtype=np.int64)
    if times is not None:
        when = draw_times(learn_rhythm(times, offsets, habits.cluster), made, lengths, rng)
        bins = np.searchsorted(habits.bin_edges, when, side="right")
    rare = RareTriples(items, events.users.astype(np.int64), n_items)
    had = np.bincount(np.unique(events.users.astype(np.int64) * n_items + items) % n_items, minlength=n_items)
    few = made[:_PILOT], lengths[:_PILOT], bins[: int(lengths[:_PILOT].sum())]
    pilot = walk_by_habit(habits, rare, *few, rng)
    habits = replace(habits, bin_lift=habits.bin_lift * _correction(pilot, few[1], had))
    say(f"{len(made):,} users walk, to {len(bins):,} events at most")
    walked = walk_by_habit(habits, rare, made, lengths, bins, rng)
    kept = walked >= 0
    place = np.arange(len(walked)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pl.DataFrame(
        {
            USER: np.repeat(np.arange(len(lengths)), lengths)[kept],
            ITEM: rng.permutation(n_items)[walked[kept]],
            **({POSITION: place[kept]} if when is None else {TIMESTAMP: when[kept]}),
        }
    )


def _correction(walked: Ints, lengths: Ints, had: Ints) -> NDArray[np.float32]:
    """(V,) by how much likelier an item should be, from what users had who walked without."""
    user = np.repeat(np.arange(len(lengths)), lengths)[walked >= 0]
    pairs = np.unique(user * len(had) + walked[walked >= 0])
    found = np.bincount(pairs % len(had), minlength=len(had))
    wanted = had * (len(pairs) / had.sum())
    ratio = (wanted + _SLACK) / (found + _SLACK)
    clipped: NDArray[np.float32] = np.clip(ratio, 1 / _FARTHEST, _FARTHEST).astype(np.float32)
    return clipped
