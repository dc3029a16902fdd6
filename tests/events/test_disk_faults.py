"""Disks that are full, broken or read-only, locks that are held, clocks that go back."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from recsys.events import sqlite_file
from recsys.events.by_place import open_events
from recsys.events.sqlite import SqliteStore
from recsys.events.store import Appended, Event, EventStore, RawId, StoreFullError
from tests.events.faulty_disk import FaultyDisk


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """A disk of one's own."""
    own = FaultyDisk()
    yield own
    own.unregister()


@pytest.fixture
def store(disk: FaultyDisk, tmp_path: Path) -> Iterator[SqliteStore]:
    """A store on it, with one event of user 1."""
    with closing(SqliteStore(tmp_path / "events.db", vfs=disk.name)) as own:
        own.append([Event(1, 10, 100, id="first")])
        yield own


def items(store: EventStore, user: RawId) -> list[RawId]:
    return [each.event.item for each in store.tail(user)]


def is_whole(path: Path) -> bool:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        return bool(connection.pragma("integrity_check") == "ok")


SAID = {
    "full": "the disk is full; free some space, nothing has to be restarted",
    "broken": "cannot be written",
    "unsynced": "cannot be written",
    "read-only": "cannot be written|cannot be opened to write",
}


@pytest.mark.parametrize("fault", SAID)
def test_what_cannot_be_written_is_refused_whole_while_reading_goes_on(
    store: SqliteStore, disk: FaultyDisk, fault: str
) -> None:
    """And is taken once it can be, by the same store, as if it had never been sent."""
    sent = [Event(1, 11, 101, id="a"), Event(2, 20, 101, id="b")]
    with disk.having(fault):
        for _ in range(3):
            with pytest.raises(StoreFullError, match=SAID[fault]) as caught:
                store.append(sent)
            assert "\n" not in str(caught.value)
            assert str(store.path) in str(caught.value)
            assert (items(store, 1), items(store, 2), store.last_seq()) == ([10], [], 1)
            with pytest.raises(StoreFullError):
                store.erase(1)
            assert not store.erased(1)
    assert store.append(sent) == Appended(2, 0, 3)
    assert store.append(sent)[:2] == (0, 2)
    assert (items(store, 1), items(store, 2)) == ([10, 11], [20])
    assert store.erase(1) == 2
    store.close()
    assert is_whole(store.path)


@pytest.mark.parametrize("fault", SAID)
def test_readers_that_come_while_nothing_can_be_written_are_served(
    store: SqliteStore, disk: FaultyDisk, fault: str
) -> None:
    """More at a time than had read before, so that connections are opened meanwhile."""
    with disk.having(fault):
        with pytest.raises(StoreFullError):
            store.append([Event(1, 11, 101)])
        parts = store.read_all()
        assert [each.event.item for each in next(parts)] == [10]
        with store._readers.taken() as first, store._readers.taken() as second:
            assert first is not second
            assert items(store, 1) == [10]
        with closing(SqliteStore(store.path, vfs=disk.name)) as another:
            assert items(another, 1) == [10]


OVER_THE_LIMIT = """
import resource, sys
from recsys.events.by_place import open_events
from recsys.events.store import Event, StoreFullError
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (5 * 2**20, hard))
store = open_events(sys.argv[1])
stored, refused = [], 0
for number in range(32):
    if refused == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    try:
        store.append([Event(1, number, each, f"{number}-{each}", "t" * 250) for each in range(1000)])
    except StoreFullError:
        refused += 1
    else:
        stored.append(number)
        if number != 31:
            continue
    there = [each.event.item for part in store.read_all() for each in part]
    assert there == [item for item in stored for _ in range(1000)], (number, stored)
print(len(stored), refused)
store.close()
"""


def test_files_that_may_not_grow_hold_what_was_acknowledged_and_grow_again_later(tmp_path: Path) -> None:
    """A fault of the kernel's: first nothing more gets from the log of writes into the file, then into it."""
    path = tmp_path / "events.db"
    command = [sys.executable, "-c", OVER_THE_LIMIT, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
    stored, refused = map(int, found.stdout.split())
    assert (stored, refused) == (29, 3)
    assert path.stat().st_size > 5 * 2**20
    assert is_whole(path)


def test_everybody_of_a_commit_that_failed_is_told(store: SqliteStore, disk: FaultyDisk) -> None:
    refused: list[int] = []

    def send(user: int) -> None:
        try:
            store.append([Event(user, 1, 1)])
        except StoreFullError:
            refused.append(user)

    with disk.having("full"):
        threads = [threading.Thread(target=send, args=(user,)) for user in range(100, 108)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(refused) == list(range(100, 108))
    assert store.last_seq() == 1
    send(100)
    assert (len(refused), items(store, 100)) == (8, [1])


def test_a_lock_that_another_process_keeps_is_waited_for_then_named(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "WAIT", 0.1)
    with closing(apsw.Connection(str(store.path), flags=apsw.SQLITE_OPEN_READWRITE)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFullError, match=r"another process has kept it locked for 0\.1 s"):
            store.append([Event(1, 11, 101)])
        assert items(store, 1) == [10]
        other.execute("ROLLBACK")
    assert store.append([Event(1, 11, 101)])[:2] == (1, 0)


def test_a_file_that_was_removed_while_open_takes_no_event_to_nowhere(store: SqliteStore) -> None:
    store.path.unlink()
    with pytest.raises(StoreFullError, match="was removed or replaced while it was open"):
        store.append([Event(1, 11, 101)])


def test_a_clock_that_steps_back_changes_no_place(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places rise with what was stored, whatever a machine's clock says; a tail goes by the events' times."""
    with closing(open_events(place)) as store:
        now = int(time.time())
        for item, said in enumerate((now, now - 86_400, now - 3600)):
            monkeypatch.setattr(time, "time", lambda said=said: float(said))
            store.append([Event(1, item, said)])
            assert [each.event.item for each in store.read_all().__next__()] == list(range(item + 1))
        assert items(store, 1) == [1, 2, 0]
        assert [each.event.item for each in store.page(1, 2)] == [2, 1]
        places = [each.seq for part in store.read_all() for each in part]
        assert places == sorted(set(places))
