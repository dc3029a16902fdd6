"""Events in a Postgres database: several machines read and write one store."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from recsys.events.event_columns import columns_text
from recsys.events.exposures import KEPT, Exposure, items_text
from recsys.events.group_commit import GroupCommit
from recsys.events.idle_connections import IdleConnections
from recsys.events.postgres_tables import (
    ERASE,
    EXPOSE,
    EXPOSURES,
    FORGET,
    GIVE_PLACES,
    INSERT,
    ONE_AT_A_TIME,
    RESERVE,
    TABLES,
    UP_TO_DATE,
    VERSION,
)
from recsys.events.sql_store import Questions, Row, SqlStore
from recsys.events.store import Appended, Event, EventStoreError, RawId, StoreFullError

_Connection = psycopg.Connection[tuple[Any, ...]]
_T = TypeVar("_T")


class PostgresStore(SqlStore[_Connection]):
    """An `EventStore` in a database, in tables whose names begin with `recsys_`, made if they are not there.

    A commit that the server was lost in may have been written or not, which nobody can tell from here: it is
    reported as not written, and events that have an id of their own can be sent again without harm.

    Args:
        url: postgresql://user:password@host:port/database; nothing says its password again.

    Raises:
        EventStoreError: the server cannot be reached, or its tables are of a later version.
    """

    _questions: ClassVar = Questions(
        placeholder="%s", prefix="recsys_", user="user_id", item="item_id", place="place"
    )
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

    def last_seq(self) -> int:
        """See `EventStore`."""
        return int(self._rows("SELECT last_seq FROM recsys_store", ())[0][0])

    def free_bytes(self) -> int | None:
        """None: a client cannot tell."""
        return None

    def close(self) -> None:
        """See `EventStore`; a second call does nothing."""
        self._commits.close()
        self._readers.close()

    def _open(self) -> str:
        """Make the tables or bring them up to date, and return the store's identity."""
        connection = self._writer = self._connect()
        row = _made(connection)
        if row is None or row[1] < VERSION:
            with connection.transaction():
                # One of several that begin at the same time does. Not more than once: what makes or changes
                # a table locks it, against those that write already.
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (int.from_bytes(b"recsys"),))
                row = _made(connection)
                for statement in _missing(connection, row):
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

    def _commit(self, work: Callable[[_Connection], _T]) -> _T:
        # A server that went away since the last time is noticed by the first statement: nothing is written
        # then, and a second try is made with a new connection.
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

    def _insert(self, connection: _Connection, group: list[Sequence[Event]]) -> list[Appended]:
        total = sum(map(len, group))
        # Holds the row until the commit: places are visible in the order in which they were given, so that
        # who has read up to one has missed none below it.
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
                [columns_text(event.columns) for event in events],
            ),
        ).fetchall()
        stored = {int(seq) for (seq,) in kept}
        found, place = [], last - total + 1
        for part in group:
            accepted = sum(seq in stored for seq in range(place, place + len(part)))
            found.append(Appended(accepted, len(part) - accepted, last))
            place += len(part)
        return found

    def _erase(self, connection: _Connection, user: RawId) -> int:
        # The erasure has a place of its own: a log that was exported before it is told from one after.
        row = connection.execute(GIVE_PLACES, (1,)).fetchone()
        assert row is not None
        key = _key(user)
        count = connection.execute("DELETE FROM recsys_events WHERE user_id = %s", (key,)).rowcount
        connection.execute("DELETE FROM recsys_exposures WHERE user_id = %s", (key,))
        connection.execute(ERASE, (key, row[0]))
        return count

    def _reserve(self, connection: _Connection, through: int) -> None:
        connection.execute(RESERVE, (through,))

    def _expose(self, connection: _Connection, exposures: Sequence[Exposure]) -> None:
        columns = (
            [e.request_id for e in exposures],
            [None if e.user is None else _key(e.user) for e in exposures],
            [e.model for e in exposures],
            [e.version for e in exposures],
            [items_text(e.items) for e in exposures],
            [e.time for e in exposures],
            [e.shadow for e in exposures],
        )
        connection.execute(ONE_AT_A_TIME)
        connection.execute(EXPOSE, columns)
        connection.execute(FORGET, (KEPT,))

    def _kept(self, raw: RawId) -> RawId:
        return _key(raw)

    def _raw(self, kept: Any) -> RawId:
        """The id of `_key`."""
        return int(kept[1:]) if kept[0] == "i" else str(kept[1:])

    def _drop_writer(self) -> None:
        if self._writer is not None:
            _close(self._writer)
        self._writer = None

    def _rows(self, sql: str, values: Sequence[RawId]) -> list[Row]:
        # Tried again by a new connection if the server had gone away since the last question.
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


def _made(connection: _Connection) -> Row | None:
    """Identity and version of the tables, None without tables."""
    if not _is_there(connection, "recsys_store"):
        return None
    return connection.execute("SELECT identity, version FROM recsys_store").fetchone()


def _missing(connection: _Connection, made: Row | None) -> tuple[str, ...]:
    """Statements that are left to run until the tables are of this version."""
    if made is None:
        return (*TABLES, *EXPOSURES)
    if made[1] >= VERSION:
        return ()
    return (*(() if _is_there(connection, "recsys_exposures") else EXPOSURES), *UP_TO_DATE)


def _is_there(connection: _Connection, table: str) -> bool:
    # Read from the catalog's table: to_regclass may go on saying no by what this session looked up before it
    # waited for the one that made the tables.
    found = connection.execute(
        "SELECT 1 FROM pg_catalog.pg_class WHERE relname = %s AND pg_catalog.pg_table_is_visible(oid)",
        (table,),
    )
    return found.fetchone() is not None


def _key(raw: RawId) -> str:
    """An id as text that tells 1 from "1"."""
    return f"i{raw}" if isinstance(raw, int) else f"s{raw}"


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
