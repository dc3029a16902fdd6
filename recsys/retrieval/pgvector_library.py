"""The one place that imports psycopg and pgvector, and how a connection is made ready to search."""

from dataclasses import dataclass
from typing import Any

from recsys.errors import IndexServerError, MissingDependencyError, RetrievalError

OLDEST = (0, 8)
"""pgvector before 0.8 cannot go on with a search that a filter has left short."""


@dataclass(slots=True)
class Session:
    """A connection, and the ef_search that it is set to."""

    connection: Any
    ef_search: int = 0


def load_pgvector() -> Any:
    """Import psycopg, with pgvector's types beside it.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    try:
        import pgvector.psycopg  # noqa: F401
        import psycopg
        import psycopg.conninfo
        import psycopg.sql
    except ImportError:
        raise MissingDependencyError(
            "psycopg and pgvector are not installed: pip install 'recsys-engine[pgvector]'"
        ) from None
    return psycopg


def connect(dsn: str, *, making: bool = False) -> Any:
    """Open a connection that knows vectors.

    Args:
        dsn: of the database; what it leaves out, such as a password, is libpq's to find.
        making: whether the extension is made where it is missing.

    Raises:
        psycopg.Error: the server cannot be reached.
        RetrievalError: the database lacks pgvector, or has one that is too old.
    """
    psycopg = load_pgvector()
    from pgvector.psycopg import register_vector

    connection = psycopg.connect(
        dsn, autocommit=True, connect_timeout=5, tcp_user_timeout=10_000, application_name="recsys index"
    )
    try:
        if making:
            connection.execute("SET client_min_messages = warning")
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        if row is None:
            raise IndexServerError(f"{shown(dsn)}: has no pgvector; CREATE EXTENSION vector there")
        if tuple(int(part) for part in row[0].split(".")[:2]) < OLDEST:
            raise RetrievalError(
                f"{shown(dsn)}: pgvector {row[0]} is too old; ALTER EXTENSION vector UPDATE to 0.8"
            )
        register_vector(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_session(dsn: str) -> Session:
    """A connection for searching.

    Raises:
        psycopg.Error, RetrievalError: as `connect`.
    """
    session = Session(connect(dsn))
    try:
        # The library is loaded by the first vector; before that any value of its settings would be taken.
        session.connection.execute("SELECT '[1]'::vector")
        session.connection.execute("SET hnsw.iterative_scan = relaxed_order")  # the order is made here
        session.connection.execute("SET plan_cache_mode = force_custom_plan")  # plans depend on the LIMIT
        session.connection.execute("SET statement_timeout = '30s'")
    except BaseException:
        session.connection.close()
        raise
    return session


def shown(dsn: str) -> str:
    """Where a database lies, for messages: no user, no option."""
    parts = load_pgvector().conninfo.conninfo_to_dict(dsn)
    host = f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}"
    return f"postgresql://{host}/{parts.get('dbname', '')}"


def said(error: BaseException) -> str:
    """The first line of what the server or libpq says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
