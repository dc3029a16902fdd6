"""Events in Postgres: a server that goes away and comes back, URLs, libraries that are missing."""

import sys
from collections.abc import Callable

import psycopg
import pytest

from recsys.errors import MissingDependencyError
from recsys.events.by_place import open_events
from recsys.events.store import Event, EventStore, EventStoreError, StoreFullError
from tests.events.conftest import new_database

Opened = Callable[[str], EventStore]


def end_connections(url: str, database: str) -> None:
    """Cut everybody off, as a server that is started anew does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()",
            (database,),
        )


def test_a_server_that_was_away_is_found_again(postgres_url: str, opened: Opened) -> None:
    url = new_database(postgres_url)
    database = url.rpartition("/")[2].partition("?")[0]
    store = opened(url)
    store.append([Event(1, 10, 1)])
    assert len(store.tail(1)) == 1
    end_connections(postgres_url, database)
    assert store.append([Event(1, 11, 2)])[:2] == (1, 0)
    end_connections(postgres_url, database)
    assert [each.event.item for each in store.tail(1)] == [10, 11]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        end_connections(postgres_url, database)
        connection.execute(f"ALTER DATABASE {database} RENAME TO {database}_away")
        with pytest.raises(StoreFullError, match=r"cannot be written .*does not exist"):
            store.append([Event(1, 12, 3)])
        with pytest.raises(EventStoreError, match="cannot be read"):
            store.tail(1)
        connection.execute(f"ALTER DATABASE {database}_away RENAME TO {database}")
    assert store.append([Event(1, 13, 4)])[:2] == (1, 0)
    assert [each.event.item for each in store.tail(1)] == [10, 11, 13]


def test_a_database_that_may_only_be_read_is_full_until_it_is_not(postgres_url: str, opened: Opened) -> None:
    url = new_database(postgres_url)
    database = url.rpartition("/")[2].partition("?")[0]
    store = opened(url)
    store.append([Event(1, 10, 1)])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        end_connections(postgres_url, database)
        with pytest.raises(StoreFullError, match="read-only transaction"):
            store.append([Event(1, 11, 2)])
        assert len(store.tail(1)) == 1
        connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    assert store.append([Event(1, 12, 3)])[:2] == (1, 0)


def test_tables_of_a_later_version_are_refused(postgres_url: str, opened: Opened) -> None:
    url = new_database(postgres_url)
    opened(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE recsys_store SET version = 99")
    with pytest.raises(EventStoreError, match="a later version of recsys"):
        open_events(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@127.0.0.1:1/events",
        "postgresql://me:secret@[::1/events",
        "postgresql://me:secret@127.0.0.1:1/events?nonsense=1",
        "postgres://me:secret@127.0.0.1:x/events",
    ],
)
def test_a_server_that_is_not_there_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(EventStoreError) as caught:
        open_events(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "library", "module", "extra"),
    [
        ("postgresql://localhost/events", "psycopg", "recsys.events.postgres", "postgres"),
        ("events.db", "apsw", "recsys.events.sqlite", "serve"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, place: str, library: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    if library == "apsw":
        monkeypatch.delitem(sys.modules, "recsys.events.sqlite_file", raising=False)
    with pytest.raises(MissingDependencyError, match=rf"{library} is not .*recsys-engine\[{extra}\]"):
        open_events(place)
