"""An event store by where it is: a SQLite file or a Postgres database."""

from pathlib import Path

from recsys.errors import MissingDependencyError
from recsys.events.store import EventStore, EventStoreError

_SCHEMES = ("postgresql", "postgres")


def open_events(place: str | Path, durability: str = "power") -> EventStore:
    """Open an event store, or make an empty one where there is none.

    Args:
        place: path of a SQLite file, or the postgresql:// URL of a database.
        durability: of a file: "power" or "process", see `recsys.events.sqlite.SqliteStore`. A server decides
            that for itself, and is asked for "power".

    Raises:
        EventStoreError: it is no event store, is damaged or cannot be reached.
        MissingDependencyError: the library for it is not installed.
    """
    if is_url(place):
        scheme, _, _ = str(place).partition("://")
        if scheme not in _SCHEMES:
            # The rest may hold a password.
            raise EventStoreError(
                f"{scheme}://...: events are kept in a file or in a postgresql:// database; name one of those"
            )
        try:
            from recsys.events.postgres import PostgresStore
        except ImportError as error:
            raise _missing(error, "psycopg", "postgres") from None
        return PostgresStore(str(place))
    try:
        from recsys.events.sqlite import SqliteStore
    except ModuleNotFoundError as error:
        raise _missing(error, "apsw", "serve") from None
    return SqliteStore(place, durability)


def is_url(place: str | Path) -> bool:
    """Whether a place is a database's URL and not a file."""
    return "://" in str(place)


def _missing(error: ImportError, library: str, extra: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"{error.name or library} is not installed, which this event store needs:"
        f" pip install 'recsys-engine[{extra}]'"
    )
