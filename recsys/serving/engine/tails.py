"""What the event store holds of a user beyond the log of a run."""

import logging
from dataclasses import dataclass

from recsys.events.store import EventStore, RawId

_log = logging.getLogger("recsys.serving.events")


@dataclass(frozen=True, slots=True)
class Tail:
    """Events of a user since the log.

    Attributes:
        since: raw item ids and unix seconds, in order of time.
        erased: whether what the log holds of the user is not read any more.
        last_seq: highest place among them; 0 for none.
    """

    since: tuple[tuple[RawId, int], ...] = ()
    erased: bool = False
    last_seq: int = 0


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
        store.erased(user, after),
        max((own.seq for own in stored), default=0),
    )


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
