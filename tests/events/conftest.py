"""Both kinds of store by name."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.events.by_place import open_events
from recsys.events.store import EventStore

pytest.importorskip("apsw", reason="the extra serve is not installed")

_numbers = itertools.count()


def new_database(url: str) -> str:
    """URL of an empty database."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    name = f"events_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    parts = {key: value for key, value in conninfo_to_dict(url).items() if value is not None}
    user, host = parts.get("user", "postgres"), str(parts["host"]).replace("/", "%2F")
    port = parts.get("port", 5432)
    return f"postgresql://{user}:secret@/{name}?host={host}&port={port}"


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store may be made."""
    if request.param == "sqlite":
        return str(tmp_path / "events.db")
    return new_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
def opened() -> Iterator[Callable[[str], EventStore]]:
    """Opens stores, and closes them after the test."""
    stores: list[EventStore] = []

    def open_one(place: str) -> EventStore:
        stores.append(open_events(place))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def events(place: str, opened: Callable[[str], EventStore]) -> EventStore:
    """An empty store."""
    return opened(place)
