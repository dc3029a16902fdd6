"""Events in a Postgres database: several machines read and write one store."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from recsys.errors import ArgumentError
from recsys.events.checking import check_events, fault_of_id
from recsys.events.exposures import KEPT, Exposure, items_of, items_text
from recsys.events.group_commit import GroupCommit
from recsys.events.idle_connections import IdleConnections
from recsys.events.postgres_tables import ERASE, EXPOSE, FORGET, GIVE_PLACES, INSERT, TABLES, VERSION
from recsys.events.store import Appended, Event, EventStoreError, RawId, StoredEvent, StoreFullError

PART = 4096
"""Events of a part of `read_all`."""

_COLUMNS = "seq, received, user_id, item_id, time, id, type, request_id"
_Connection = psycopg.Connection[tuple[Any, ...]]
_T = TypeVar("_T")


class PostgresStore:
    """An `EventStore` in a database, in tables whose names begin with `recsys_`, made if they are not there.

    A commit that the server was lost in may have been written or not, which nobody can tell from here: it is
    reported as not written, and events that have an id of their own can be sent again without harm.

    Args:
        url: postgresql://user:password@host:port/database; nothing says its password again.

    Raises:
        EventStoreError: the server cannot be reached, or its tables are of a later version.
    """

    reads_wait = True
    """Whether reading takes long enough to do something else meanwhile."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.place = _shown(url)
        self._readers: IdleConnections[_Connection] = IdleConnections(self._connect, _close)
        self._writer: _Connection | None = None
        try:
            self._identity = self._open()
        except psycopg.Error as error:
            raise EventStoreError(
                f"{self.place}: cannot be used ({_said(error)}); see to the server"
            ) from None
        finally:
            self._drop_writer()
        self._commits = GroupCommit(self._write, self._drop_writer, "events in Postgres")

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
        check_events(events)
        if not events:
            return Appended(0, 0, self.last_seq())
        return self._commits.append(events)

    def tail(self, user: RawId, after: int = 0) -> list[StoredEvent]:
        """See `EventStore`."""
        if fault_of_id(user) is not None:
            return []
        sql = f"SELECT {_COLUMNS} FROM recsys_events WHERE user_id = %s AND seq > %s ORDER BY time, seq"
        return self._events(sql, (_key(user), after))

    def page(self, user: RawId, limit: int, before: int | None = None) -> list[StoredEvent]:
        """See `EventStore`."""
        if fault_of_id(user) is not None:
            return []
        sql = (
            f"SELECT {_COLUMNS} FROM recsys_events WHERE user_id = %s AND seq < %s ORDER BY seq DESC LIMIT %s"
        )
        return self._events(sql, (_key(user), _end(before), limit))

    def recent(self, limit: int, before: int | None = None) -> list[StoredEvent]:
        """See `EventStore`."""
        sql = f"SELECT {_COLUMNS} FROM recsys_events WHERE seq < %s ORDER BY seq DESC LIMIT %s"
        return self._events(sql, (_end(before), limit))

    def read_all(self, after: int = 0, through: int | None = None) -> Iterator[list[StoredEvent]]:
        """See `EventStore`; what is written meanwhile is not read, and does not wait."""
        last = self.last_seq() if through is None else through
        sql = f"SELECT {_COLUMNS} FROM recsys_events WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT {PART}"
        while True:
            part = self._events(sql, (after, last))
            if part:
                yield part
            if len(part) < PART:
                return
            after = part[-1].seq

    def last_seq(self) -> int:
        """See `EventStore`."""
        return int(self._rows("SELECT last_seq FROM recsys_store", ())[0][0])

    def erase(self, user: RawId) -> int:
        """See `EventStore`."""
        fault = fault_of_id(user)
        if fault is not None:
            raise ArgumentError(f"user: {fault}")
        return int(self._commits.call(lambda: self._commit(lambda c: _erase(c, _key(user)))))

    def erased(self, user: RawId, through: int = 0) -> bool:
        """See `EventStore`."""
        if fault_of_id(user) is not None:
            return False
        return bool(
            self._rows("SELECT 1 FROM recsys_erased WHERE user_id = %s AND seq > %s", (_key(user), through))
        )

    def erasures(self, through: int = 0) -> list[RawId]:
        """See `EventStore`."""
        sql = "SELECT user_id FROM recsys_erased WHERE seq > %s ORDER BY seq"
        return [_raw(str(user)) for (user,) in self._rows(sql, (through,))]

    def expose(self, exposures: Sequence[Exposure]) -> None:
        """See `ExposureStore`."""
        columns = (
            [e.request_id for e in exposures],
            [None if e.user is None else _key(e.user) for e in exposures],
            [e.model for e in exposures],
            [e.version for e in exposures],
            [items_text(e.items) for e in exposures],
            [e.time for e in exposures],
            [e.shadow for e in exposures],
        )

        def insert(connection: _Connection) -> None:
            connection.execute(EXPOSE, columns)
            connection.execute(FORGET, (KEPT,))

        self._commits.call(lambda: self._commit(insert))

    def exposures(self) -> Iterator[list[Exposure]]:
        """See `ExposureStore`."""
        sql = (
            "SELECT place, request_id, user_id, model, version, items, time, shadow FROM recsys_exposures"
            f" WHERE place > %s ORDER BY place LIMIT {PART}"
        )
        after = 0
        while rows := self._rows(sql, (after,)):
            yield [
                Exposure(
                    request_id=request,
                    user=None if user is None else _raw(user),
                    model=model,
                    version=version,
                    items=items_of(items),
                    time=when,
                    shadow=shadow,
                )
                for _, request, user, model, version, items, when, shadow in rows
            ]
            after = int(rows[-1][0])

    def free_bytes(self) -> int | None:
        """None: a client cannot tell."""
        return None

    def close(self) -> None:
        """See `EventStore`; a second call does nothing."""
        self._commits.close()
        self._readers.close()

    def _open(self) -> str:
        """Make the tables if they are not there, and return the store's identity."""
        connection = self._writer = self._connect()
        row = _made(connection)
        if row is None:
            with connection.transaction():
                # One of several that begin at the same time makes them. Not more than once: what makes a
                # table locks it, against those that write already.
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (int.from_bytes(b"recsys"),))
                row = _made(connection)
                if row is None:
                    for statement in TABLES:
                        connection.execute(statement)
                    row = _made(connection)
        assert row is not None
        if row[1] > VERSION:
            raise EventStoreError(f"{self.place}: a later version of recsys made its tables; upgrade recsys")
        return str(row[0])

    def _connect(self) -> _Connection:
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=5,
            tcp_user_timeout=10_000,
            application_name="recsys events",
            options="-c synchronous_commit=on -c lock_timeout=10s",
        )

    def _write(self, group: list[Sequence[Event]]) -> list[Appended]:
        """One commit, on the writer's thread."""
        return self._commit(lambda connection: _insert(connection, group))

    def _commit(self, work: Callable[[_Connection], _T]) -> _T:
        """Run work in a transaction.

        A server that went away since the last time is noticed by the first statement: nothing is written
        then, and a second try is made with a new connection.

        Raises:
            StoreFullError: it could not be written.
        """
        try:
            if self._writer is not None:
                try:
                    self._writer.execute("BEGIN")
                except psycopg.OperationalError:
                    self._drop_writer()
            if self._writer is None:
                self._writer = self._connect()
                self._writer.execute("BEGIN")
            result = work(self._writer)
            self._writer.execute("COMMIT")
        except psycopg.Error as error:
            self._drop_writer()
            raise StoreFullError(
                f"{self.place}: cannot be written ({_said(error)}); see to the server"
            ) from None
        except BaseException:
            self._drop_writer()
            raise
        return result

    def _drop_writer(self) -> None:
        if self._writer is not None:
            _close(self._writer)
        self._writer = None

    def _events(self, sql: str, values: Sequence[str | int]) -> list[StoredEvent]:
        return [
            StoredEvent(seq, received, Event(_raw(user), _raw(item), when, name, kind, request))
            for seq, received, user, item, when, name, kind, request in self._rows(sql, values)
        ]

    def _rows(self, sql: str, values: Sequence[str | int]) -> list[tuple[Any, ...]]:
        """Rows of a query; tried again by a new connection if the server had gone away since the last one.

        Raises:
            EventStoreError: the server cannot be reached.
        """
        try:
            try:
                with self._readers.taken() as connection:
                    return connection.execute(sql, values).fetchall()
            except psycopg.OperationalError:
                self._readers.drop()
                with self._readers.taken() as connection:
                    return connection.execute(sql, values).fetchall()
        except psycopg.Error as error:
            raise EventStoreError(
                f"{self.place}: cannot be read ({_said(error)}); see to the server"
            ) from None


def _made(connection: _Connection) -> tuple[Any, ...] | None:
    """Identity and version of the tables, None without tables."""
    there = connection.execute("SELECT to_regclass('recsys_store')").fetchone()
    if there is None or there[0] is None:
        return None
    return connection.execute("SELECT identity, version FROM recsys_store").fetchone()


def _insert(connection: _Connection, group: list[Sequence[Event]]) -> list[Appended]:
    total = sum(map(len, group))
    # Holds the row until the commit: places are visible in the order in which they were given, so that who
    # has read up to one has missed none below it.
    row = connection.execute(GIVE_PLACES, (total,)).fetchone()
    assert row is not None
    last = int(row[0])
    events = [event for part in group for event in part]
    places = range(last - total + 1, last + 1)
    kept = connection.execute(
        INSERT,
        (
            list(places),
            [event.id for event in events],
            [_key(event.user) for event in events],
            [_key(event.item) for event in events],
            [event.time for event in events],
            [event.type for event in events],
            int(time.time()),
            [event.request_id for event in events],
        ),
    ).fetchall()
    stored = {int(seq) for (seq,) in kept}
    found, place = [], last - total + 1
    for part in group:
        accepted = sum(seq in stored for seq in range(place, place + len(part)))
        found.append(Appended(accepted, len(part) - accepted, last))
        place += len(part)
    return found


def _erase(connection: _Connection, user: str) -> int:
    # The erasure has a place of its own: a log that was exported before it is told from one after.
    row = connection.execute(GIVE_PLACES, (1,)).fetchone()
    assert row is not None
    count = connection.execute("DELETE FROM recsys_events WHERE user_id = %s", (user,)).rowcount
    connection.execute("DELETE FROM recsys_exposures WHERE user_id = %s", (user,))
    connection.execute(ERASE, (user, row[0]))
    return count


def _key(raw: RawId) -> str:
    """An id as text that tells 1 from "1"."""
    return f"i{raw}" if isinstance(raw, int) else f"s{raw}"


def _raw(key: str) -> RawId:
    return int(key[1:]) if key[0] == "i" else key[1:]


def _end(before: int | None) -> int:
    return 2**63 - 1 if before is None else before


def _close(connection: _Connection) -> None:
    with suppress(psycopg.Error):
        connection.close()


def _shown(url: str) -> str:
    """The URL without password and options.

    Raises:
        EventStoreError: it is none. What is wrong with it is not said: the text may hold the password.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        raise EventStoreError(
            "the URL of the event store is not one; write postgresql://user:password@host:port/database"
        ) from None
    host = f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}"
    return f"postgresql://{host}/{parts.get('dbname', '')}"


def _said(error: psycopg.Error) -> str:
    """A server's first line."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
