"""An event store by where it is: a SQLite file or a Postgres database."""

from pathlib import Path

from recsys.errors import MissingDependencyError
from recsys.events.store import EventStore


def open_events(place: str | Path, durability: str = "power") -> EventStore:
    """Open an event store, or make an empty one where there is none.

    Args:
        place: path of a SQLite file.
        durability: "power" or "process", see `recsys.events.sqlite.SqliteStore`.

    Raises:
        EventStoreError: it is no event store, is damaged or cannot be reached.
        MissingDependencyError: the library for it is not installed.
    """
    try:
        from recsys.events.sqlite import SqliteStore
    except ModuleNotFoundError as error:
        raise _missing(error, "serve") from None
    return SqliteStore(place, durability)


def _missing(error: ModuleNotFoundError, extra: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"{error.name} is not installed, which an event store needs: pip install 'recsys-engine[{extra}]'"
    )
