"""A SQLite file of events: its tables, how it is made and opened, and what SQLite's errors say to people."""

import os
import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import apsw

from recsys.errors import RunError
from recsys.events.store import DamagedStoreError, EventStoreError, StoreFullError
from recsys.files import lock_on, replacing

APPLICATION = 0x72656376
"""SQLite's application_id of an event store ("recv")."""

VERSION = 3
"""Of the tables; a later one is refused, an earlier one is brought up to date when it is opened."""

WAIT = 10.0
"""Seconds that a writer waits for those of other processes."""

TABLES = """
CREATE TABLE store(identity TEXT NOT NULL);
CREATE TABLE events(
  -- AUTOINCREMENT: the place of an erased event is never given again.
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT UNIQUE,
  -- No type: a column that has one would make 1 and '1' the same.
  user NOT NULL,
  item NOT NULL,
  time INTEGER NOT NULL,
  type TEXT,
  received INTEGER NOT NULL,
  request_id TEXT,
  columns TEXT);
-- An index ends with the place, so a user's newest events are read from it in order.
CREATE INDEX events_of_user ON events(user);
CREATE TABLE erased(user NOT NULL UNIQUE, seq INTEGER NOT NULL, time INTEGER NOT NULL DEFAULT 0);
"""

EXPOSURES = """
CREATE TABLE exposures(
  request_id TEXT NOT NULL,
  user,
  model TEXT NOT NULL,
  version TEXT NOT NULL,
  items TEXT NOT NULL,
  time INTEGER NOT NULL,
  shadow INTEGER NOT NULL);
CREATE INDEX exposures_of_request ON exposures(request_id);
CREATE INDEX exposures_of_user ON exposures(user);
"""


def make_if_missing(path: Path) -> None:
    """Make an empty store unless the file is there; of several processes one makes it, whole.

    Raises:
        EventStoreError: the folder cannot be written.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock_on(path.parent, wait=True):
            if path.exists():
                return
            with replacing(path) as temporary:
                connection = apsw.Connection(str(temporary))
                try:
                    connection.pragma("journal_mode", "wal")
                    with connection:
                        connection.pragma("application_id", APPLICATION)
                        connection.pragma("user_version", VERSION)
                        connection.execute(TABLES + EXPOSURES)
                        connection.execute("INSERT INTO sqlite_sequence VALUES ('events', 0)")
                        connection.execute("INSERT INTO store VALUES (?)", (uuid.uuid4().hex,))
                finally:
                    connection.close()
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)  # the name, too, outlives a loss of power
            finally:
                os.close(handle)
    except RunError as error:
        raise EventStoreError(str(error)) from None
    except OSError as error:
        raise EventStoreError(f"{path}: cannot be made ({error.strerror}); choose another folder") from None
    except apsw.Error as error:
        raise said_of(error, path) from None


def connect(
    path: Path, durability: str, vfs: str | None = None, *, writes: bool = False, waits: bool = True
) -> apsw.Connection:
    """Open a connection to a store that is there, and see that it is one.

    Args:
        path: of the file.
        durability: "power" or "process".
        vfs: SQLite's name of the layer that reads and writes files; None is the usual one.
        writes: whether events are written through it.
        waits: for other processes that keep the file locked, up to `WAIT`; else that is an `apsw.BusyError`
            of what is done with it.

    Raises:
        EventStoreError: the file is of something else, of a later version, damaged or unreadable.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    except apsw.Error as error:
        raise said_of(error, path) from None
    try:
        connection.set_busy_handler(_patience())
        _check(connection, path)
        if not waits:
            connection.set_busy_handler(None)
        connection.pragma("synchronous", "full" if durability == "power" else "normal")
        if writes:
            connection.pragma("secure_delete", True)  # what is erased is overwritten
            connection.pragma("journal_size_limit", 64 * 2**20)
        else:
            connection.pragma("query_only", True)
    except apsw.Error as error:
        connection.close(force=True)
        raise said_of(error, path) from None
    except EventStoreError:
        connection.close(force=True)
        raise
    return connection


def bring_up_to_date(connection: apsw.Connection, path: Path) -> None:
    """Give a store of an earlier version the tables of this one, all of them or none.

    Args:
        connection: for writing.
        path: of the store.

    Raises:
        EventStoreError: the file cannot be written.
    """
    try:
        if connection.pragma("user_version") == VERSION:
            return
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been first.
        version = connection.pragma("user_version")
        if version == 1:
            connection.execute("ALTER TABLE erased ADD COLUMN time INTEGER NOT NULL DEFAULT 0")
            columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(exposures)")}
            if "shadow" not in columns:
                # Nothing was ever written into the first form of this table.
                connection.execute(f"DROP TABLE exposures; {EXPOSURES}")
        if version in (1, 2):
            connection.execute("ALTER TABLE events ADD COLUMN columns TEXT")
            connection.pragma("user_version", VERSION)
        connection.execute("COMMIT")
    except apsw.Error as error:
        raise said_of(error, path) from None


def _check(connection: apsw.Connection, path: Path) -> None:
    if connection.pragma("application_id") != APPLICATION:
        raise EventStoreError(
            f"{path}: is a database of something else, not an event store; name another file"
        )
    version = connection.pragma("user_version")
    if not isinstance(version, int) or version > VERSION:
        raise EventStoreError(f"{path}: a later version of recsys made this event store; upgrade recsys")


def said_of(error: Exception, path: Path, *, writing: bool = False) -> EventStoreError:
    """SQLite's error as one line with a remedy.

    Args:
        error: an `apsw.Error`.
        path: of the store.
        writing: whether events were being written, which makes most of them a `StoreFullError`.
    """
    match error:
        case apsw.NotADBError():
            return EventStoreError(f"{path}: is not an event store; name another file")
        case apsw.CorruptError():
            return DamagedStoreError(f"{path}: is damaged ({error}); look with: recsys events check {path}")
        case apsw.FullError():
            return StoreFullError(f"{path}: the disk is full; free some space, nothing has to be restarted")
        case apsw.BusyError() | apsw.LockedError():
            return StoreFullError(
                f"{path}: another process has kept it locked for {WAIT:g} s; end that process or send again"
            )
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            kind = StoreFullError if writing else EventStoreError
            return kind(
                f"{path}: cannot be opened to write ({error}); see to the file, its folder and its disk"
            )
        case _:
            kind = StoreFullError if writing else EventStoreError
            return kind(f"{path}: cannot be {'written' if writing else 'read'} ({error}); see to its disk")


def _patience() -> Callable[[int], bool]:
    """A handler that waits for other writers: shortly and at random, so that nobody waits for ever."""
    began = 0.0

    def wait(attempt: int) -> bool:
        nonlocal began
        if attempt == 0:
            began = time.monotonic()
        elif time.monotonic() - began > WAIT:
            return False
        time.sleep(random.uniform(0.0002, 0.002))
        return True

    return wait
