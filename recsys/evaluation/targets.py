"""Who is asked what: the (user, history, target) rows that a split of a prepared log gives."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.item_features import ItemFeatures
from recsys.errors import ArgumentError
from recsys.evaluation.spans import Ints, expand_spans, span_contains

Split = Literal["test", "valid"]
TargetMode = Literal["next", "all"]


class PreparedLog(Protocol):
    """What evaluation reads of a prepared dataset; `recsys.datasets.prepared.store.SequenceStore` has it."""

    @property
    def name(self) -> str:
        """The dataset's name."""

    @property
    def items(self) -> NDArray[np.int32]:
        """(N,) int32 item of each event, users one after the other, each in time order."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(U+1,) int64 first position of each user's events."""

    @property
    def valid_start(self) -> NDArray[np.int64]:
        """(U,) int64 absolute position of each user's first validation event."""

    @property
    def test_start(self) -> NDArray[np.int64]:
        """(U,) int64 absolute position of each user's first test event."""

    @property
    def n_users(self) -> int:
        """Number of users."""

    @property
    def n_items(self) -> int:
        """Size of the catalog."""

    @property
    def meta(self) -> dict[str, Any]:
        """Contents of meta.json."""

    def item_counts(self) -> NDArray[np.int64]:
        """(V,) int64 training events of each item."""


def item_features_of(log: PreparedLog) -> ItemFeatures | None:
    """What a log knows of its items besides their ids; None for one that has nothing of the kind."""
    return getattr(log, "item_features", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTargets:
    """The rows to rank: R targets of U counted users; a user's rows are neighbors.

    Attributes:
        split: "test" or "valid".
        mode: "next" (one target per user) or "all" (each distinct item of the segment once).
        user: (R,) int64 index of the row's user in the store.
        target: (R,) int64 item to find.
        history_start: (R,) int64 absolute position of the user's first event.
        history_end: (R,) int64 absolute position past the user's last event before the segment.
        request_position: (R,) int64 absolute position of the segment's first event that may be a target,
            whose time is that of the request; the same for all rows of a user.
        row_offsets: (U+1,) int64, rows of the u-th counted user are row_offsets[u]:row_offsets[u+1].
        repeated: (R,) bool, whether the target is in the row's history.
        without_segment: users that have no event in the split and are not counted.
        without_history: users with events in the split but none before it; not counted.
        below_min_events: users with fewer than `min_events` events in all; not counted.
        seen_targets_dropped: targets left out because the history holds them.
        users_dropped_seen: users not counted because all their targets were left out so.
        without_targets: users whose events in the split are context alone; not counted.
    """

    split: Split
    mode: TargetMode
    user: Ints
    target: Ints
    history_start: Ints
    history_end: Ints
    request_position: Ints
    row_offsets: Ints
    repeated: NDArray[np.bool_]
    without_segment: int = 0
    without_history: int = 0
    below_min_events: int = 0
    seen_targets_dropped: int = 0
    users_dropped_seen: int = 0
    without_targets: int = 0

    @property
    def n_rows(self) -> int:
        """Number of targets."""
        return len(self.target)

    @property
    def n_users(self) -> int:
        """Number of users that are counted."""
        return len(self.row_offsets) - 1

    @property
    def first_rows(self) -> Ints:
        """(U,) int64 first row of each counted user: one hidden state is needed for each."""
        return self.row_offsets[:-1]


def select_targets(
    store: PreparedLog,
    split: Split = "test",
    targets: TargetMode = "next",
    *,
    drop_seen_targets: bool = False,
    min_events: int = 0,
    users: Ints | None = None,
) -> EvaluationTargets:
    """Choose the rows that a split gives.

    The history of a row is every event of its user before the split's segment: before a test segment that
    includes the validation events. Users with an empty history are counted apart and skipped. Events that are
    context alone are no targets; a user whose segment holds no other is counted apart and skipped.

    Args:
        store: the prepared log.
        split: "test" or "valid".
        targets: "next" takes the first event of the user's segment; "all" takes every distinct item of the
            segment, in order of first occurrence.
        drop_seen_targets: leave out targets that the history holds (RecTools' habit). With "next" the user
            is then not counted; the following event does not take its place.
        min_events: users with fewer events in all are not counted (SASRec.pytorch: 4).
        users: (M,) int64 indices of the users to consider, each at most once; None for everyone.

    Raises:
        ArgumentError: an option is not one of those above, or `users` holds a wrong or repeated index.
    """
    if split not in ("test", "valid"):
        raise ArgumentError(f"split={split!r} is not known: choose 'test' or 'valid'")
    if targets not in ("next", "all"):
        raise ArgumentError(f"targets={targets!r} is not known: choose 'next' or 'all'")
    chosen = _check_users(users, store.n_users)
    first = np.asarray(store.offsets[:-1], dtype=np.int64)[chosen]
    last = np.asarray(store.offsets[1:], dtype=np.int64)[chosen]
    test_start = np.asarray(store.test_start, dtype=np.int64)[chosen]
    start = test_start if split == "test" else np.asarray(store.valid_start, dtype=np.int64)[chosen]
    end = last if split == "test" else test_start

    has_segment = end > start
    long_enough = last - first >= min_events
    has_history = start > first
    counted = has_segment & long_enough & has_history
    without_segment = int(np.count_nonzero(~has_segment))
    below_min_events = int(np.count_nonzero(has_segment & ~long_enough))
    without_history = int(np.count_nonzero(has_segment & long_enough & ~has_history))
    user, first, start, end = chosen[counted], first[counted], start[counted], end[counted]

    may = getattr(store, "event_targets", None)
    asked, without_targets = start, 0
    if may is not None:
        asked = _first_targets(may, start, end)
        held = asked < end
        without_targets = int(np.count_nonzero(~held))
        user, first, start, end, asked = (own[held] for own in (user, first, start, end, asked))
    owner, target = _segment_targets(store, asked, end, targets, may)
    repeated = span_contains(store.items, first[owner], start[owner], target)
    dropped = 0
    if drop_seen_targets:
        dropped = int(np.count_nonzero(repeated))
        owner, target, repeated = owner[~repeated], target[~repeated], repeated[~repeated]
    rows_per_user = np.bincount(owner, minlength=len(user))
    kept_users = rows_per_user > 0
    row_offsets = np.zeros(int(np.count_nonzero(kept_users)) + 1, dtype=np.int64)
    np.cumsum(rows_per_user[kept_users], out=row_offsets[1:])
    return EvaluationTargets(
        split=split,
        mode=targets,
        user=user[owner],
        target=target,
        history_start=first[owner],
        history_end=start[owner],
        request_position=asked[owner],
        row_offsets=row_offsets,
        repeated=repeated,
        without_segment=without_segment,
        without_history=without_history,
        below_min_events=below_min_events,
        seen_targets_dropped=dropped,
        users_dropped_seen=int(np.count_nonzero(~kept_users)),
        without_targets=without_targets,
    )


def _check_users(users: Ints | None, n_users: int) -> Ints:
    if users is None:
        return np.arange(n_users, dtype=np.int64)
    chosen = np.sort(np.asarray(users, dtype=np.int64))
    if chosen.ndim != 1 or (len(chosen) and (chosen[0] < 0 or chosen[-1] >= n_users)):
        raise ArgumentError(f"users must be a list of indices in [0, {n_users}): one lies outside")
    if np.any(chosen[1:] == chosen[:-1]):
        raise ArgumentError("users holds an index twice: pass each user once")
    return chosen


def _first_targets(may: NDArray[np.bool_], start: Ints, end: Ints) -> Ints:
    """(U,) int64 position of the first event of each segment that may be a target; its end if none may."""
    places = np.flatnonzero(may)
    following = np.searchsorted(places, start)
    found = np.append(places, len(may))[following]
    first: Ints = np.minimum(found, end)
    return first


def _segment_targets(
    store: PreparedLog, start: Ints, end: Ints, mode: TargetMode, may: NDArray[np.bool_] | None
) -> tuple[Ints, Ints]:
    """The rows' users (as places in `start`) and their targets, of events that may be some."""
    if mode == "next":
        return np.arange(len(start), dtype=np.int64), store.items[start].astype(np.int64)
    positions, offsets = expand_spans(start, end)
    owner = np.repeat(np.arange(len(start), dtype=np.int64), np.diff(offsets))
    if may is not None:
        owner, positions = owner[may[positions]], positions[may[positions]]
    target = store.items[positions].astype(np.int64)
    _, firsts = np.unique(owner * store.n_items + target, return_index=True)
    order = np.sort(firsts)
    return owner[order], target[order]
