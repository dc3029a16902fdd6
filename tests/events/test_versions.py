"""Stores whose tables an earlier version made are brought up to date when they are opened."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import psycopg
import pytest

from recsys.events.by_place import open_events
from recsys.events.event_columns import ColumnValue
from recsys.events.exposures import Exposure, ExposureStore
from recsys.events.sqlite_file import APPLICATION
from recsys.events.store import Event, EventStore
from tests.events.conftest import new_database

Opened = Callable[[str], EventStore]

SQLITE = """
CREATE TABLE store(identity TEXT NOT NULL);
CREATE TABLE events(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, user NOT NULL, item NOT NULL,
  time INTEGER NOT NULL, type TEXT, received INTEGER NOT NULL, request_id TEXT);
CREATE INDEX events_of_user ON events(user);
CREATE TABLE erased(user NOT NULL UNIQUE, seq INTEGER NOT NULL);
INSERT INTO sqlite_sequence VALUES ('events', 0);
INSERT INTO store VALUES ('old');
INSERT INTO events(id, user, item, time, received) VALUES ('a', 1, 10, 100, 100), ('b', '1', 11, 101, 101);
INSERT INTO erased VALUES (2, 3);
UPDATE sqlite_sequence SET seq = 3 WHERE name = 'events';
"""

FIRST_EXPOSURES = """
CREATE TABLE exposures(request_id TEXT NOT NULL, user, model TEXT NOT NULL, items TEXT NOT NULL,
  time INTEGER NOT NULL);
CREATE INDEX exposures_of_request ON exposures(request_id);
CREATE INDEX exposures_of_user ON exposures(user);
"""

SECOND_EXPOSURES = """
CREATE TABLE exposures(request_id TEXT NOT NULL, user, model TEXT NOT NULL, version TEXT NOT NULL,
  items TEXT NOT NULL, time INTEGER NOT NULL, shadow INTEGER NOT NULL);
CREATE INDEX exposures_of_request ON exposures(request_id);
CREATE INDEX exposures_of_user ON exposures(user);
INSERT INTO exposures VALUES ('r0', 1, 'm', 'v', '[3]', 90, 0);
"""

POSTGRES = (
    "CREATE TABLE recsys_store(one boolean PRIMARY KEY DEFAULT true CHECK (one), identity text NOT NULL,"
    " version integer NOT NULL, last_seq bigint NOT NULL)",
    "CREATE TABLE recsys_events(seq bigint PRIMARY KEY, id text UNIQUE,"
    ' user_id text COLLATE "C" NOT NULL, item_id text NOT NULL, time bigint NOT NULL,'
    " type text, received bigint NOT NULL, request_id text)",
    "CREATE INDEX recsys_events_of_user ON recsys_events(user_id, seq)",
    'CREATE TABLE recsys_erased(user_id text COLLATE "C" PRIMARY KEY, seq bigint NOT NULL)',
    "INSERT INTO recsys_store(identity, version, last_seq) VALUES ('old', 1, 3)",
    "INSERT INTO recsys_events(seq, id, user_id, item_id, time, received)"
    " VALUES (1, 'a', 'i1', 'i10', 100, 100), (2, 'b', 's1', 'i11', 101, 101)",
    "INSERT INTO recsys_erased VALUES ('i2', 3)",
)

NEW = Exposure(request_id="r1", user=1, model="m", version="v", items=(5,), time=2_000_000_000)
OLD = Exposure(request_id="r0", user=1, model="m", version="v", items=(3,), time=90)


def check(store: EventStore, before: list[Exposure]) -> None:
    assert isinstance(store, ExposureStore)
    assert (store.identity, store.last_seq(), store.erasures()) == ("old", 3, [2])
    assert [(e.event.id, e.event.item) for user in (1, "1") for e in store.tail(user)] == [
        ("a", 10),
        ("b", 11),
    ]
    store.expose([NEW])
    assert [own for part in store.exposures() for own in part] == [*before, NEW]
    columns: dict[str, ColumnValue] = {"action": "buy", "price": 9.5, "gift": True, "place": None}
    assert store.append([Event(2, 5, 200, columns=columns)]).last_seq == 4
    assert store.tail(2)[-1].event.columns == columns
    assert store.erase(2) == 1
    assert store.erased(2, 4)


@pytest.mark.parametrize(
    ("tables", "before"), [(FIRST_EXPOSURES, []), (SECOND_EXPOSURES, [OLD])], ids=["first", "second"]
)
def test_a_file_of_version_1(tmp_path: Path, opened: Opened, tables: str, before: list[Exposure]) -> None:
    path = tmp_path / "events.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.pragma("application_id", APPLICATION)
        connection.pragma("user_version", 1)
        connection.execute(SQLITE + tables)
    check(opened(str(path)), before)
    again = opened(str(path))
    assert (again.last_seq(), again.erased(2, 4)) == (5, True)


def test_a_file_of_version_2(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "events.db"
    opened(str(path)).append([Event(1, 5, 100, "a")])
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("ALTER TABLE events DROP COLUMN columns")
        connection.pragma("user_version", 2)
    again = opened(str(path))
    again.append([Event(1, 6, 200, columns={"action": "buy"})])
    assert [own.event.columns for own in again.tail(1)] == [None, {"action": "buy"}]


@pytest.mark.parametrize("kept", [False, True], ids=["without-exposures", "with"])
def test_a_database_of_version_1(postgres_url: str, opened: Opened, kept: bool) -> None:
    url = new_database(postgres_url)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in POSTGRES:
            connection.execute(statement)
    if kept:
        store = open_events(url)
        assert isinstance(store, ExposureStore)
        store.expose([OLD])
        store.close()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE recsys_erased DROP COLUMN time")
            connection.execute("ALTER TABLE recsys_events DROP COLUMN columns")
            connection.execute("UPDATE recsys_store SET version = 1")
    check(opened(url), [OLD] if kept else [])
    again = opened(url)
    assert (again.last_seq(), again.erased(2, 4)) == (5, True)
