"""All that is known of users: what the log holds of them, and what came since; packed as requests."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recsys.answering.queries import Array, Queries
from recsys.datasets.prepared.event_columns import MISSING
from recsys.datasets.prepared.sharded_store import events_of
from recsys.datasets.times.time_zones import utc_offsets

if TYPE_CHECKING:
    from recsys.datasets.prepared.store import SequenceStore

_NOTHING = np.zeros(0, dtype=np.int64)


class UserEvents(NamedTuple):
    """A user's L events, oldest first."""

    items: Array
    """(L,) int64 item indices."""

    times: Array | None
    """(L,) int64 unix seconds, or None where order alone is known."""

    utc_offsets: Array | None
    """(L,) int64 seconds from UTC to local time at each event, or None where nobody says what it is."""

    codes: Array | None = None
    """(L, E) int64 codes of what came with each event, or None where the log keeps none."""

    users: Array | None = None
    """(C,) int64 codes of what is known of the user, or None where the log keeps none."""

    def followed_by(
        self, items: Array, times: Array | None, zone: str | None, codes: Array | None = None
    ) -> "UserEvents":
        """These events and later ones.

        Args:
            items: (S,) int64.
            times: (S,) int64 unix seconds; None leaves all without times.
            zone: of the later ones, IANA name or offset; None goes on with the offset of the last event.
            codes: (S, E) int64 of what came with them; None where nothing is known of it.
        """
        all_items = np.concatenate([self.items, items])
        if self.codes is not None:
            later = np.zeros((len(items), self.codes.shape[1]), dtype=np.int64) if codes is None else codes
            codes = np.concatenate([self.codes, later])
        else:
            codes = None
        if self.times is None or times is None:
            return UserEvents(all_items, None, None, codes, self.users)
        all_times = np.concatenate([self.times, times])
        if self.utc_offsets is None:
            return UserEvents(all_items, all_times, None, codes, self.users)
        if zone is not None:
            since = utc_offsets(times, zone).astype(np.int64)
        else:
            since = np.repeat(self.utc_offsets[-1:], len(times))
        # Nobody says what is local time to a new user of a log whose users have zones of their own.
        known = len(since) == len(times)
        offsets = np.concatenate([self.utc_offsets, since]) if known else None
        return UserEvents(all_items, all_times, offsets, codes, self.users)

    def in_order(self) -> "UserEvents":
        """The same by time, those of one time as they are."""
        if self.times is None or not bool((np.diff(self.times) < 0).any()):
            return self
        order = np.argsort(self.times, kind="stable")
        offsets = None if self.utc_offsets is None else self.utc_offsets[order]
        codes = None if self.codes is None else self.codes[order]
        return UserEvents(self.items[order], self.times[order], offsets, codes, self.users)


def log_events(store: "SequenceStore", row: int | None) -> UserEvents:
    """What the log holds of a user: nothing of None, with times and offsets where the log has them."""
    store, rows = events_of(store, np.array([] if row is None else [row], dtype=np.int64))
    span = slice(int(store.offsets[rows[0]]), int(store.offsets[rows[0] + 1])) if len(rows) else slice(0, 0)
    return UserEvents(
        np.asarray(store.items[span], dtype=np.int64),
        None if store.timestamps is None else np.asarray(store.timestamps[span], dtype=np.int64),
        None if store.utc_offsets is None else np.asarray(store.utc_offsets[span], dtype=np.int64),
        None if store.event_codes is None else np.asarray(store.event_codes[span], dtype=np.int64),
        _of_user(store, rows),
    )


def _of_user(store: "SequenceStore", rows: Array) -> Array | None:
    """(C,) int64 codes of what the log knows of a user, all missing of one whom it does not know."""
    if store.user_codes is None:
        return None
    if len(rows) == 0:
        return np.full(store.user_codes.shape[1], MISSING, dtype=np.int64)
    return np.asarray(store.user_codes[rows[0]], dtype=np.int64)


def packed(events: Sequence[UserEvents], labels: list[Any], *, of_users: bool = True) -> Queries:
    """Requests of R users, with times or offsets where all of them have them.

    Args:
        events: of each user.
        labels: their raw ids, or places.
        of_users: whether labels are user ids of the log.
    """
    lengths = np.array([len(own.items) for own in events], dtype=np.int64)
    times = [own.times for own in events if own.times is not None]
    zones = [own.utc_offsets for own in events if own.utc_offsets is not None]
    codes = [own.codes for own in events if own.codes is not None]
    users = [own.users for own in events if own.users is not None]
    with_times = len(times) == len(events)
    return Queries(
        labels,
        np.concatenate([_NOTHING, *(own.items for own in events)]),
        np.concatenate([_NOTHING, *times]) if with_times else None,
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.concatenate([_NOTHING, *zones]) if with_times and len(zones) == len(events) else None,
        of_users=of_users,
        event_codes=np.concatenate(codes) if codes and len(codes) == len(events) else None,
        user_codes=np.stack(users) if users and len(users) == len(events) else None,
    )
