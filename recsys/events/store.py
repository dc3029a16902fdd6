"""What a store of events is: the protocol that SQLite and Postgres keep."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from recsys.errors import RecsysError
from recsys.events.event_columns import ColumnValue

RawId = int | str
"""A user's or item's id as the log has it: whole numbers or text, never one for the other."""


class EventStoreError(RecsysError):
    """An event store cannot be opened, or is damaged; the message names it and the remedy."""


class DamagedStoreError(EventStoreError):
    """What an event store holds cannot be right."""


class StoreFullError(EventStoreError):
    """Events cannot be written now: no room, a read-only disk, an I/O error. Reading goes on."""


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction, as it is handed in.

    Attributes:
        user: raw id.
        item: raw id, known to a model or not.
        time: unix seconds.
        id: the sender's name for it; one that is there already is a duplicate, and not stored again.
        type: "view", "purchase"...; None is not said.
        request_id: of the answer that it came of.
        columns: what else came with it, by name; None or empty where nothing did.
    """

    user: RawId
    item: RawId
    time: int
    id: str | None = None
    type: str | None = None
    request_id: str | None = None
    columns: Mapping[str, ColumnValue] | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place: `seq` rises by at least one with every event of the store."""

    seq: int
    received: int
    event: Event


class Appended(NamedTuple):
    """What became of some events."""

    accepted: int
    duplicates: int
    last_seq: int
    """Highest place given so far; a tail read from now on holds everything up to it."""


class EventStore(Protocol):
    """Events by user, durable. Every method may be called from any thread and any process.

    What `append` has returned for is there after `kill -9`, and every `tail` anywhere from then on holds it.
    """

    @property
    def identity(self) -> str:
        """A text drawn when the store was made: which store a watermark is of."""
        ...

    def append(self, events: Sequence[Event]) -> Appended:
        """Store events; returns when they are durable. All of them or none.

        Raises:
            StoreFullError: they could not be written; none of them is there.
        """
        ...

    def submit(self, events: Sequence[Event]) -> "Future[Appended]":
        """Store events, at least one, without waiting: the future is done when `append` would return."""
        ...

    def tail(self, user: RawId, after: int = 0) -> list[StoredEvent]:
        """A user's events with seq > after, in order of (time, seq)."""
        ...

    def page(self, user: RawId, limit: int, before: int | None = None) -> list[StoredEvent]:
        """A user's newest events with seq < before, newest seq first, `limit` of them."""
        ...

    def recent(self, limit: int, before: int | None = None) -> list[StoredEvent]:
        """Newest events of everybody with seq < before, newest seq first, `limit` of them."""
        ...

    def read_all(self, after: int = 0, through: int | None = None) -> Iterator[list[StoredEvent]]:
        """Everything with after < seq <= through, in order of seq, in parts of bounded size."""
        ...

    def last_seq(self) -> int:
        """Highest place given so far; 0 for none."""
        ...

    def reserve(self, through: int) -> bool:
        """Give no place up to this one any more.

        A store that was put back from a copy has forgotten places that it gave, and that a training log
        holds: events under them would count as read.

        Returns:
            Whether the last place given was below.

        Raises:
            StoreFullError: as `append`.
        """
        ...

    def erase(self, user: RawId) -> int:
        """Delete what is stored of a user, and remember that what the log holds of them is erased, too.

        Returns:
            How many events were deleted. Their places are not given again, and `last_seq` rises.

        Raises:
            StoreFullError: as `append`.
        """
        ...

    def erased(self, user: RawId, through: int = 0) -> bool:
        """Whether what a training log holds of a user is not to be read any more.

        Args:
            user: raw id.
            through: of the log's watermark. An erasure has a place of its own, so that a log exported after
                it is read again, which holds nothing from before; 0 is a log that no store wrote.
        """
        ...

    def erasures(self, through: int = 0) -> list[RawId]:
        """Users of whom `erased` is true."""
        ...

    def free_bytes(self) -> int | None:
        """Room left where events are written; None where that cannot be told."""
        ...

    def close(self) -> None:
        """Finish what is being written and let go of the store."""
        ...


@runtime_checkable
class QuickStore(EventStore, Protocol):
    """A store that an event loop may ask whether something came in of a user."""

    def newest(self, user: RawId, after: int = 0) -> tuple[int, bool] | None:
        """Highest place of a user's events with seq > after, 0 for none; and `erased(user, after)`.

        None where that cannot be told without waiting for other processes.
        """
        ...
