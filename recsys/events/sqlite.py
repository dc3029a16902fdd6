"""Events in one SQLite file: by WAL, committed in groups, read by any number of threads and processes."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, TypeVar

import apsw

from recsys.errors import ArgumentError
from recsys.events.checking import fault_of_id
from recsys.events.event_columns import columns_text
from recsys.events.exposures import KEPT, SKEW, Exposure, items_text
from recsys.events.group_commit import GroupCommit
from recsys.events.idle_connections import IdleConnections
from recsys.events.sql_store import Questions, Row, SqlStore
from recsys.events.sqlite_file import bring_up_to_date, connect, make_if_missing, said_of
from recsys.events.store import Appended, Event, EventStoreError, RawId, StoreFullError
from recsys.files import user_path

_LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
_INSERT = (
    "INSERT INTO events(id, user, item, time, type, received, request_id, columns)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO NOTHING"
)
_EXPOSE = (
    "INSERT INTO exposures(request_id, user, model, version, items, time, shadow)"
    " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7"
    f" WHERE NOT EXISTS (SELECT 1 FROM erased WHERE user = ?2 AND time > ?6 - {SKEW})"
)
_NEWEST = (
    "SELECT coalesce((SELECT max(seq) FROM events WHERE user = ?1 AND seq > ?2), 0),"
    " EXISTS (SELECT 1 FROM erased WHERE user = ?1 AND seq > ?2)"
)
_T = TypeVar("_T")


class SqliteStore(SqlStore[apsw.Connection]):
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

    _questions: ClassVar = Questions(placeholder="?", prefix="", user="user", item="item", place="rowid")

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
        self._glances = IdleConnections(
            lambda: connect(self.path, durability, vfs, waits=False),
            lambda connection: connection.close(force=True),
        )
        self._writer: apsw.Connection | None = connect(self.path, durability, vfs, writes=True)
        try:
            bring_up_to_date(self._writer, self.path)
            self._identity = str(self._rows("SELECT identity FROM store", ())[0][0])
            self.last_seq()
        except BaseException:
            self._writer.close(force=True)
            raise
        self._commits = GroupCommit(self._write, self._end, f"events of {self.path.name}")

    def newest(self, user: RawId, after: int = 0) -> tuple[int, bool] | None:
        """See `QuickStore`."""
        if fault_of_id(user) is not None:
            return 0, False
        try:
            with self._glances.taken() as connection:
                ((last, gone),) = connection.execute(_NEWEST, (user, after))
        except (apsw.BusyError, apsw.LockedError):
            return None
        except apsw.Error as error:
            raise said_of(error, self.path) from None
        return int(last), bool(gone)

    def last_seq(self) -> int:
        """See `EventStore`."""
        return int(self._rows(_LAST, ())[0][0])

    def structure_fault(self) -> str | None:
        """What SQLite finds wrong with the file's pages and indexes; None if nothing."""
        found = str(self._rows("PRAGMA integrity_check(1)", ())[0][0])
        return None if found == "ok" else f"{self.path}: is damaged ({found})"

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
        self._glances.close()

    def _rows(self, sql: str, values: Sequence[RawId]) -> list[Row]:
        try:
            with self._readers.taken() as connection:
                return list(connection.execute(sql, tuple(values)))
        except apsw.Error as error:
            raise said_of(error, self.path) from None

    def _commit(self, work: Callable[[apsw.Connection], _T]) -> _T:
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

    def _insert(self, connection: apsw.Connection, group: list[Sequence[Event]]) -> list[Appended]:
        received = int(time.time())
        before = connection.total_changes()
        accepted = []
        for events in group:
            connection.executemany(
                _INSERT,
                (
                    (e.id, e.user, e.item, e.time, e.type, received, e.request_id, columns_text(e.columns))
                    for e in events
                ),
            )
            after = connection.total_changes()
            accepted.append(after - before)
            before = after
        last = int(connection.execute(_LAST).get)
        rows = zip(accepted, group, strict=True)
        return [Appended(count, len(events) - count, last) for count, events in rows]

    def _erase(self, connection: apsw.Connection, user: RawId) -> int:
        connection.execute("DELETE FROM events WHERE user = ?", (user,))
        count = connection.changes()
        connection.execute("DELETE FROM exposures WHERE user = ?", (user,))
        # The erasure has a place of its own: a log that was exported before it is told from one after.
        connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'events'")
        connection.execute(
            f"INSERT INTO erased(user, seq, time) VALUES (?, ({_LAST}), ?)"
            " ON CONFLICT(user) DO UPDATE SET seq = excluded.seq, time = excluded.time",
            (user, int(time.time())),
        )
        return count

    def _after_erasing(self) -> None:
        with suppress(apsw.Error):
            # What was erased stands in the log of writes until that begins anew.
            assert self._writer is not None
            self._writer.pragma("wal_checkpoint(truncate)")

    def _reserve(self, connection: apsw.Connection, through: int) -> None:
        connection.execute(
            "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'events' AND seq < ?1", (through,)
        )

    def _expose(self, connection: apsw.Connection, exposures: Sequence[Exposure]) -> None:
        rows = [
            (e.request_id, e.user, e.model, e.version, items_text(e.items), e.time, e.shadow)
            for e in exposures
        ]
        connection.executemany(_EXPOSE, rows)
        connection.execute(
            "DELETE FROM exposures WHERE rowid <= (SELECT max(rowid) FROM exposures) - ?", (KEPT,)
        )

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

    def _inode_now(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
