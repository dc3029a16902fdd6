"""What stores in SQL have in common: the same questions of the same tables, and one thread that writes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Generic, TypeVar

from recsys.errors import ArgumentError
from recsys.events.checking import check_events, fault_of_id
from recsys.events.event_columns import columns_of
from recsys.events.exposures import Exposure, items_of
from recsys.events.group_commit import GroupCommit
from recsys.events.store import Appended, Event, RawId, StoredEvent

PART = 4096
"""Events, or exposures, that are read at a time."""

_LAST = 2**63 - 1

C = TypeVar("C")
T = TypeVar("T")
Row = tuple[Any, ...]


class Questions:
    """Statements that read, in a database's own spelling.

    Args:
        placeholder: that stands for a value.
        prefix: of the tables' names.
        user: name of the column of users.
        item: of items.
        place: of what rises with every exposure.
    """

    def __init__(self, *, placeholder: str, prefix: str, user: str, item: str, place: str) -> None:
        kept = f"seq, received, {user}, {item}, time, id, type, request_id, columns"
        events = f"SELECT {kept} FROM {prefix}events WHERE"
        newest = f"seq < {placeholder} ORDER BY seq DESC LIMIT {placeholder}"
        self.tail = f"{events} {user} = {placeholder} AND seq > {placeholder} ORDER BY time, seq"
        self.page = f"{events} {user} = {placeholder} AND {newest}"
        self.recent = f"{events} {newest}"
        self.between = (
            f"{events} seq > {placeholder} AND seq <= {placeholder} ORDER BY seq LIMIT {placeholder}"
        )
        self.erased = f"SELECT 1 FROM {prefix}erased WHERE {user} = {placeholder} AND seq > {placeholder}"
        self.erasures = f"SELECT {user} FROM {prefix}erased WHERE seq > {placeholder} ORDER BY seq"
        self.exposures = (
            f"SELECT {place}, request_id, {user}, model, version, items, time, shadow"
            f" FROM {prefix}exposures WHERE {place} > {placeholder} ORDER BY {place} LIMIT {placeholder}"
        )


class SqlStore(ABC, Generic[C]):
    """An `EventStore` and `ExposureStore` over connections of one kind.

    A store of one kind says how a connection is asked and how a transaction ends; `_commits` it makes itself.
    """

    _questions: ClassVar[Questions]
    _identity: str
    _commits: GroupCommit

    @property
    def identity(self) -> str:
        """See `EventStore`."""
        return self._identity

    def append(self, events: Sequence[Event]) -> Appended:
        """See `EventStore`.

        Raises:
            ArgumentError: an event that no store could keep.
            StoreFullError: see `EventStore`.
        """
        return self.submit(events).result()

    def submit(self, events: Sequence[Event]) -> "Future[Appended]":
        """See `EventStore`; raises ArgumentError as `append`."""
        check_events(events)
        if events:
            return self._commits.submit(events)
        nothing: Future[Appended] = Future()
        nothing.set_result(Appended(0, 0, self.last_seq()))
        return nothing

    def tail(self, user: RawId, after: int = 0) -> list[StoredEvent]:
        """See `EventStore`."""
        if fault_of_id(user) is not None:
            return []
        return self._events(self._questions.tail, (self._kept(user), after))

    def page(self, user: RawId, limit: int, before: int | None = None) -> list[StoredEvent]:
        """See `EventStore`."""
        if fault_of_id(user) is not None:
            return []
        return self._events(self._questions.page, (self._kept(user), _end(before), limit))

    def recent(self, limit: int, before: int | None = None) -> list[StoredEvent]:
        """See `EventStore`."""
        return self._events(self._questions.recent, (_end(before), limit))

    def read_all(self, after: int = 0, through: int | None = None) -> Iterator[list[StoredEvent]]:
        """See `EventStore`; what is written meanwhile is not read, and does not wait."""
        last = self.last_seq() if through is None else through
        while True:
            part = self._events(self._questions.between, (after, last, PART))
            if part:
                yield part
            if len(part) < PART:
                return
            after = part[-1].seq

    @abstractmethod
    def last_seq(self) -> int:
        """See `EventStore`."""

    def reserve(self, through: int) -> bool:
        """See `EventStore`."""
        if self.last_seq() >= through:
            return False
        self._written(lambda connection: self._reserve(connection, through))
        return True

    def erase(self, user: RawId) -> int:
        """See `EventStore`."""
        fault = fault_of_id(user)
        if fault is not None:
            raise ArgumentError(f"user: {fault}")
        return self._written(lambda connection: self._erase(connection, user), self._after_erasing)

    def erased(self, user: RawId, through: int = 0) -> bool:
        """See `EventStore`."""
        if fault_of_id(user) is not None:
            return False
        return bool(self._rows(self._questions.erased, (self._kept(user), through)))

    def erasures(self, through: int = 0) -> list[RawId]:
        """See `EventStore`."""
        return [self._raw(user) for (user,) in self._rows(self._questions.erasures, (through,))]

    def expose(self, exposures: Sequence[Exposure]) -> None:
        """See `ExposureStore`."""
        self._written(lambda connection: self._expose(connection, exposures))

    def exposures(self) -> Iterator[list[Exposure]]:
        """See `ExposureStore`."""
        after = 0
        while rows := self._rows(self._questions.exposures, (after, PART)):
            yield [
                Exposure(
                    request_id=request,
                    user=None if user is None else self._raw(user),
                    model=model,
                    version=version,
                    items=items_of(items),
                    time=when,
                    shadow=bool(shadow),
                )
                for _, request, user, model, version, items, when, shadow in rows
            ]
            after = int(rows[-1][0])

    def _write(self, group: list[Sequence[Event]]) -> list[Appended]:
        """Events of some callers in one transaction; called by the thread of `_commits`."""
        return self._commit(lambda connection: self._insert(connection, group))

    def _written(self, work: Callable[[C], T], afterwards: Callable[[], None] | None = None) -> T:
        """Run work in a transaction of its own between two commits of events."""

        def run() -> T:
            found = self._commit(work)
            if afterwards is not None:
                afterwards()
            return found

        result: T = self._commits.call(run)
        return result

    def _events(self, sql: str, values: Sequence[RawId]) -> list[StoredEvent]:
        return [
            StoredEvent(
                seq,
                received,
                Event(self._raw(user), self._raw(item), when, name, kind, request, columns_of(columns)),
            )
            for seq, received, user, item, when, name, kind, request, columns in self._rows(sql, values)
        ]

    @abstractmethod
    def _rows(self, sql: str, values: Sequence[RawId]) -> list[Row]:
        """Rows of a question, on a connection that no other thread uses meanwhile.

        Raises:
            EventStoreError: the store cannot be read, or is closed.
        """

    @abstractmethod
    def _commit(self, work: Callable[[C], T]) -> T:
        """Run work in a transaction that is durable afterwards, or was never there.

        Raises:
            StoreFullError: it could not be written. The next call tries with a connection of its own.
        """

    @abstractmethod
    def _insert(self, connection: C, group: list[Sequence[Event]]) -> list[Appended]: ...

    @abstractmethod
    def _erase(self, connection: C, user: RawId) -> int: ...

    @abstractmethod
    def _reserve(self, connection: C, through: int) -> None: ...

    @abstractmethod
    def _expose(self, connection: C, exposures: Sequence[Exposure]) -> None:
        """Insert exposures but those of users who were erased since, and let the oldest go."""

    def _after_erasing(self) -> None:
        """What is left to do once an erasure is durable."""

    def _kept(self, raw: RawId) -> RawId:
        """An id as a column holds it."""
        return raw

    def _raw(self, kept: Any) -> RawId:
        """The id that a column holds."""
        found: RawId = kept
        return found


def _end(before: int | None) -> int:
    return _LAST if before is None else before
