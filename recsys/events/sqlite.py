"""Events in one SQLite file: by WAL, committed in groups, read by any number of threads and processes."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from recsys.errors import ArgumentError
from recsys.events.checking import check_events, fault_of_id
from recsys.events.exposures import KEPT, Exposure, items_of, items_text
from recsys.events.group_commit import GroupCommit
from recsys.events.idle_connections import IdleConnections
from recsys.events.sqlite_file import connect, make_if_missing, said_of
from recsys.events.store import Appended, Event, EventStoreError, RawId, StoredEvent, StoreFullError
from recsys.files import user_path

PART = 4096
"""Events of a part of `read_all`."""

_COLUMNS = "seq, received, user, item, time, id, type, request_id"
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
_T = TypeVar("_T")


class SqliteStore:
    """An `EventStore` in a file; several processes may have it open.

    Args:
        path: of the file, which is made if it is not there. Beside it lie two more, `-wal` and `-shm`, that
            belong to it. Not on a network's file system: SQLite's locks need one machine.
        durability: "power": an acknowledged event survives a loss of power; "process": it survives the end
            of every process, not that of the machine, and writing is faster.
        vfs: SQLite's name of another layer for files.

    Raises:
        EventStoreError: the file is no event store, is damaged, or cannot be made or opened.
    """

    def __init__(self, path: str | Path, durability: str = "power", vfs: str | None = None) -> None:
        if durability not in ("power", "process"):
            raise ArgumentError(f"durability {durability!r} is not known; choose power or process")
        self.path = user_path(path)
        self._durability, self._vfs = durability, vfs
        make_if_missing(self.path)
        self._inode = self._inode_now()
        self._readers = IdleConnections(
            lambda: connect(self.path, durability, vfs), lambda connection: connection.close(force=True)
        )
        self._writer: apsw.Connection | None = connect(self.path, durability, vfs, writes=True)
        try:
            self._identity = self._read(lambda c: str(c.execute("SELECT identity FROM store").get))
            self.last_seq()
        except BaseException:
            self._writer.close(force=True)
            raise
        self._commits = GroupCommit(self._write, self._end, f"events of {self.path.name}")

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
        sql = f"SELECT {_COLUMNS} FROM events WHERE user = ? AND seq > ? ORDER BY time, seq"
        return self._read(lambda c: _events(c, sql, (user, after)))

    def page(self, user: RawId, limit: int, before: int | None = None) -> list[StoredEvent]:
        """See `EventStore`."""
        if fault_of_id(user) is not None:
            return []
        sql = f"SELECT {_COLUMNS} FROM events WHERE user = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
        return self._read(lambda c: _events(c, sql, (user, _end(before), limit)))

    def recent(self, limit: int, before: int | None = None) -> list[StoredEvent]:
        """See `EventStore`."""
        sql = f"SELECT {_COLUMNS} FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?"
        return self._read(lambda c: _events(c, sql, (_end(before), limit)))

    def read_all(self, after: int = 0, through: int | None = None) -> Iterator[list[StoredEvent]]:
        """See `EventStore`; what is written meanwhile is not read, and does not wait."""
        last = self.last_seq() if through is None else through
        sql = f"SELECT {_COLUMNS} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {PART}"
        while True:
            part = self._read(partial(_events, sql=sql, values=(after, last)))
            if part:
                yield part
            if len(part) < PART:
                return
            after = part[-1].seq

    def last_seq(self) -> int:
        """See `EventStore`."""
        return self._read(lambda c: int(c.execute(_LAST).get))

    def erase(self, user: RawId) -> int:
        """See `EventStore`."""
        fault = fault_of_id(user)
        if fault is not None:
            raise ArgumentError(f"user: {fault}")
        return int(self._commits.call(lambda: self._erase(user)))

    def erased(self, user: RawId, through: int = 0) -> bool:
        """See `EventStore`."""
        sql = "SELECT 1 FROM erased WHERE user = ? AND seq > ?"
        return fault_of_id(user) is None and self._read(
            lambda c: c.execute(sql, (user, through)).get is not None
        )

    def erasures(self, through: int = 0) -> list[RawId]:
        """See `EventStore`."""
        sql = "SELECT user FROM erased WHERE seq > ? ORDER BY seq"
        return self._read(lambda c: [user for (user,) in c.execute(sql, (through,))])

    def structure_fault(self) -> str | None:
        """What SQLite finds wrong with the file's pages and indexes; None if nothing."""
        found = self._read(lambda c: str(c.execute("PRAGMA integrity_check(1)").get))
        return None if found == "ok" else f"{self.path}: is damaged ({found})"

    def expose(self, exposures: Sequence[Exposure]) -> None:
        """See `ExposureStore`."""
        rows = [
            (e.request_id, e.user, e.model, e.version, items_text(e.items), e.time, e.shadow)
            for e in exposures
        ]

        def insert(connection: apsw.Connection) -> None:
            connection.executemany(
                "INSERT INTO exposures(request_id, user, model, version, items, time, shadow)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            connection.execute(
                "DELETE FROM exposures WHERE rowid <= (SELECT max(rowid) FROM exposures) - ?", (KEPT,)
            )

        self._commits.call(lambda: self._commit(insert))

    def exposures(self) -> Iterator[list[Exposure]]:
        """See `ExposureStore`."""
        sql = (
            "SELECT rowid, request_id, user, model, version, items, time, shadow FROM exposures"
            f" WHERE rowid > ? ORDER BY rowid LIMIT {PART}"
        )
        after = 0
        while rows := self._read(partial(_rows, sql=sql, values=(after,))):
            yield [
                Exposure(
                    request_id=request,
                    user=user,
                    model=model,
                    version=version,
                    items=items_of(items),
                    time=when,
                    shadow=bool(shadow),
                )
                for _, request, user, model, version, items, when, shadow in rows
            ]
            after = rows[-1][0]

    def free_bytes(self) -> int | None:
        """See `EventStore`."""
        try:
            found = os.statvfs(self.path.parent)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    def close(self) -> None:
        """See `EventStore`; a second call does nothing."""
        self._commits.close()
        self._readers.close()

    def _write(self, group: list[Sequence[Event]]) -> list[Appended]:
        """One commit, on the writer's thread."""
        return self._commit(lambda connection: _insert(connection, group))

    def _erase(self, user: RawId) -> int:
        def delete(connection: apsw.Connection) -> int:
            connection.execute("DELETE FROM events WHERE user = ?", (user,))
            count = connection.changes()
            connection.execute("DELETE FROM exposures WHERE user = ?", (user,))
            # The erasure has a place of its own: a log that was exported before it is told from one after.
            connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'events'")
            connection.execute(
                f"INSERT INTO erased VALUES (?, ({_LAST}))"
                " ON CONFLICT(user) DO UPDATE SET seq = excluded.seq",
                (user,),
            )
            return count

        count = self._commit(delete)
        with suppress(apsw.Error):
            # What was erased stands in the log of writes until that begins anew.
            assert self._writer is not None
            self._writer.pragma("wal_checkpoint(truncate)")
        return count

    def _commit(self, work: Callable[[apsw.Connection], _T]) -> _T:
        """Run work in a transaction that is durable afterwards, or was never there.

        Raises:
            StoreFullError: it could not be written. The next call tries with a connection of its own.
        """
        if self._inode_now() != self._inode:
            raise StoreFullError(
                f"{self.path}: was removed or replaced while it was open; open the store again"
            )
        try:
            if self._writer is None:
                self._writer = connect(self.path, self._durability, self._vfs, writes=True)
            self._writer.execute("BEGIN IMMEDIATE")
            result = work(self._writer)
            self._writer.execute("COMMIT")
        except apsw.Error as error:
            self._drop_writer()
            raise said_of(error, self.path, writing=True) from None
        except EventStoreError as error:
            self._drop_writer()
            raise StoreFullError(str(error)) from None
        except BaseException:
            self._drop_writer()
            raise
        return result

    def _drop_writer(self) -> None:
        """Close the connection for writing, which rolls back what it was at."""
        if self._writer is not None:
            with suppress(apsw.Error):
                self._writer.close(force=True)
        self._writer = None

    def _end(self) -> None:
        """As the writer's thread ends: bring everything into the file itself."""
        if self._writer is not None:
            with suppress(apsw.Error):
                self._writer.pragma("wal_checkpoint(passive)")
        self._drop_writer()

    def _read(self, work: Callable[[apsw.Connection], _T]) -> _T:
        """Run work on a connection that no other thread uses meanwhile.

        Raises:
            EventStoreError: the file cannot be read, or the store is closed.
        """
        try:
            with self._readers.taken() as connection:
                return work(connection)
        except apsw.Error as error:
            raise said_of(error, self.path) from None

    def _inode_now(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _insert(connection: apsw.Connection, group: list[Sequence[Event]]) -> list[Appended]:
    sql = (
        "INSERT INTO events(id, user, item, time, type, received, request_id) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT(id) DO NOTHING"
    )
    received = int(time.time())
    before = connection.total_changes()
    accepted = []
    for events in group:
        connection.executemany(
            sql, ((e.id, e.user, e.item, e.time, e.type, received, e.request_id) for e in events)
        )
        after = connection.total_changes()
        accepted.append(after - before)
        before = after
    last = int(connection.execute(_LAST).get)
    return [Appended(count, len(events) - count, last) for count, events in zip(accepted, group, strict=True)]


def _rows(connection: apsw.Connection, sql: str, values: tuple[int, ...]) -> list[tuple[Any, ...]]:
    return list(connection.execute(sql, values))


def _events(connection: apsw.Connection, sql: str, values: tuple[RawId | int, ...]) -> list[StoredEvent]:
    return [
        StoredEvent(seq, received, Event(user, item, when, name, kind, request))
        for seq, received, user, item, when, name, kind, request in connection.execute(sql, values)
    ]


def _end(before: int | None) -> int:
    return 2**63 - 1 if before is None else before
