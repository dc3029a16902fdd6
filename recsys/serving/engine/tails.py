"""What the event store holds of a user beyond the log of a run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from recsys.events.event_columns import ColumnValue
from recsys.events.store import Event, EventStore, QuickStore, RawId


class Position(NamedTuple):
    """What tells a user's tail from any other that the same user has before or after.

    Places rise and are not given again, so that every event changes the first; where an erasure leaves it at
    0, there is either nothing as there was before, or the second changes.
    """

    last_seq: int
    """Highest place of the tail; 0 for none."""
    erased: bool


_log = logging.getLogger("recsys.serving.events")


@dataclass(frozen=True, slots=True)
class Tail:
    """Events of a user since the log.

    Attributes:
        since: raw item ids and unix seconds, in order of time.
        columns: what came with each, its type among that; None of one with which nothing came.
        erased: whether what the log holds of the user is not read any more.
        last_seq: highest place among them; 0 for none.
    """

    since: tuple[tuple[RawId, int], ...] = ()
    columns: tuple[Mapping[str, ColumnValue] | None, ...] = ()
    erased: bool = False
    last_seq: int = 0

    @property
    def position(self) -> Position:
        """Of the user after it."""
        return Position(self.last_seq, self.erased)


NOTHING = Tail()


def read_tail(store: EventStore, user: RawId, watermark: tuple[str, int] | None) -> Tail:
    """Read what came in of a user, up to now.

    Args:
        store: of events.
        user: raw id in the log's kind.
        watermark: the store that the log was exported from, and the last place in it that the log holds;
            None, or another store's, is read from the beginning.

    Raises:
        EventStoreError: the store cannot be read.
    """
    after = log_end(store, watermark)
    stored = store.tail(user, after)
    return Tail(
        tuple((own.event.item, own.event.time) for own in stored),
        tuple(_columns(own.event) for own in stored),
        store.erased(user, after),
        max((own.seq for own in stored), default=0),
    )


def _columns(event: Event) -> Mapping[str, ColumnValue] | None:
    """What came with an event by the names that an exported log has."""
    return event.columns if event.type is None else {"type": event.type, **(event.columns or {})}


def read_position(store: QuickStore, user: RawId, watermark: tuple[str, int] | None) -> Position | None:
    """The position of what `read_tail` would read now; None where the store would make us wait.

    Raises:
        EventStoreError: the store cannot be read.
    """
    found = store.newest(user, log_end(store, watermark))
    return None if found is None else Position(*found)


def log_end(store: EventStore, watermark: tuple[str, int] | None) -> int:
    """Highest place of the store that the log holds; 0 for a log of something else."""
    return watermark[1] if watermark is not None and watermark[0] == store.identity else 0


def reserve_log(store: EventStore, watermark: tuple[str, int] | None) -> None:
    """Let no event get a place that a log holds, which a store put back from an older copy would give again.

    Raises:
        StoreFullError: the store cannot be written.
    """
    through = log_end(store, watermark)
    if through and store.reserve(through):
        _log.warning(
            "the event store ended before place %d, which the log holds: it is a copy from before; "
            "places begin after that, and users who were erased since then have to be erased again",
            through,
        )
