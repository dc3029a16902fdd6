"""An index as a table of Postgres: made in one transaction and published in another; a kill leaves no half.

items_0123456789ab    the table: id, v, and pgvector's graph over v; its comment says what it is
items                 a view of the one that was saved last, for whoever else wants to read the vectors
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsys.errors import ArgumentError, IndexServerError, RetrievalError
from recsys.retrieval.metric import Floats32
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.pgvector_library import connect, load_pgvector, said, shown
from recsys.retrieval.remote import FORMAT, facts_of, is_ours, mismatch, name_of

_WIDEST = 2000
"""Most columns of a vector that pgvector builds a graph over."""


def check_buildable(width: int, options: IndexOptions) -> None:
    """Refuse what pgvector would refuse after the vectors were sent.

    Raises:
        ArgumentError: see above.
    """
    if width > _WIDEST:
        raise ArgumentError(
            f"kind='pgvector' takes vectors of up to {_WIDEST:,} columns, these have {width:,}: "
            "use kind='qdrant', or a smaller d_model"
        )
    if not 2 <= options.hnsw_m <= 100:
        raise ArgumentError(f"index.hnsw_m = {options.hnsw_m}: pgvector takes 2 to 100")
    if not max(4, 2 * options.hnsw_m) <= options.ef_construction <= 1000:
        raise ArgumentError(
            f"index.ef_construction = {options.ef_construction}: pgvector takes twice index.hnsw_m, at least "
            "4, to 1000"
        )


def operator(l2: bool) -> tuple[str, str]:
    """The operator of a distance, and the operators that its graph is built for."""
    return ("<->", "vector_l2_ops") if l2 else ("<#>", "vector_ip_ops")


def build_table(
    dsn: str, collection: str, digest: str, vectors: Floats32, options: IndexOptions, *, l2: bool
) -> None:
    """Make the table unless it is there.

    Args:
        dsn: of the database.
        collection: name of the view that will show it.
        digest: of the index.
        vectors: (V, d).
        options: of the graph.
        l2: whether distances are Euclidean, rather than inner products.

    Raises:
        ArgumentError: as `check_buildable`.
        RetrievalError: the server refuses, or the name is that of something else.
        IndexServerError: it cannot be reached.
    """
    check_buildable(vectors.shape[1], options)
    with _transaction(dsn, collection) as connection:
        _shown(connection, collection, dsn)
        if _digest(connection, name_of(collection, digest)) != digest:
            _make(connection, name_of(collection, digest), digest, vectors, options, l2)


def publish_table(dsn: str, collection: str, digest: str) -> None:
    """Let the view show the table, and drop all tables but it and the one that was shown before.

    Args:
        dsn: of the database.
        collection: name of the view.
        digest: of the index.

    Raises:
        RetrievalError: the server refuses, or the name is that of something else.
        IndexServerError: it cannot be reached.
    """
    with _transaction(dsn, collection) as connection:
        before = _shown(connection, collection, dsn)
        if before != digest:
            _show(connection, collection, digest)
            _drop_others(connection, collection, {name_of(collection, d) for d in (digest, before) if d})


@contextmanager
def _transaction(dsn: str, collection: str) -> Iterator[Any]:
    """A connection in a transaction of which there is one at a time for a collection."""
    psycopg = load_pgvector()
    try:
        connection = connect(dsn, making=True)
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (collection,))
                yield connection
        finally:
            connection.close()
    except psycopg.OperationalError as error:
        raise IndexServerError(
            f"{shown(dsn)}: cannot be reached or gave up ({said(error)}); see to the server"
        ) from None
    except psycopg.Error as error:
        raise RetrievalError(
            f"{shown(dsn)}: the index cannot be built there ({said(error)}); see to the server"
        ) from None


def check_table(connection: Any, dsn: str, collection: str, digest: str, n_items: int) -> None:
    """Refuse a table that is not there, not whole or of another index.

    Raises:
        IndexServerError: it is not there.
        RetrievalError: it is another one.
    """
    name = name_of(collection, digest)
    found = _comment(connection, name)
    if found is None:
        raise gone(dsn, name)
    if found.get("digest") != digest:
        raise mismatch(f"{shown(dsn)}, table {name}", found.get("digest"), digest)
    sql = load_pgvector().sql
    count = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone()[0]
    if count != n_items:
        raise RetrievalError(
            f"{shown(dsn)}, table {name}: holds {count:,} of {n_items:,} vectors; drop it and build the "
            "index again"
        )


def gone(dsn: str, name: str) -> IndexServerError:
    """The error of a table that is not there."""
    return IndexServerError(f"{shown(dsn)}: holds no table {name}; build the index again")


def _comment(connection: Any, name: str) -> dict[str, Any] | None:
    """What a table or view says of itself, empty if nothing; None if there is none of the name."""
    row = connection.execute(
        "SELECT obj_description(to_regclass(quote_ident(%s)), 'pg_class'), to_regclass(quote_ident(%s))",
        (name, name),
    ).fetchone()
    if row[1] is None:
        return None
    try:
        found = json.loads(row[0] or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}


def _digest(connection: Any, name: str) -> str | None:
    found = (_comment(connection, name) or {}).get("digest")
    return None if found is None else str(found)


def _shown(connection: Any, collection: str, dsn: str) -> str | None:
    """The digest of the index that the view shows; None without a view.

    Raises:
        RetrievalError: the name is that of something else.
    """
    found = _comment(connection, collection)
    if found is not None and "digest" not in found:
        raise RetrievalError(
            f"{shown(dsn)}: {collection} is there and is not an item index; choose another collection="
        )
    return None if found is None else str(found["digest"])


def _make(
    connection: Any, name: str, digest: str, vectors: Floats32, options: IndexOptions, l2: bool
) -> None:
    sql = load_pgvector().sql
    table = sql.Identifier(name)
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    connection.execute(
        sql.SQL("CREATE TABLE {} (id int4 NOT NULL, v vector({}) NOT NULL)").format(
            table, sql.Literal(vectors.shape[1])
        )
    )
    with connection.cursor().copy(
        sql.SQL("COPY {} (id, v) FROM STDIN WITH (FORMAT BINARY)").format(table)
    ) as copy:
        copy.set_types(["int4", "vector"])
        for row, vector in enumerate(vectors):
            copy.write_row((row, vector))
    connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(table))
    connection.execute(
        sql.SQL("CREATE INDEX ON {} USING hnsw (v {}) WITH (m = {}, ef_construction = {})").format(
            table,
            sql.SQL(operator(l2)[1]),
            sql.Literal(options.hnsw_m),
            sql.Literal(options.ef_construction),
        )
    )
    connection.execute(sql.SQL("ANALYZE {}").format(table))
    said_of_itself = sql.Literal(json.dumps(facts_of(digest, vectors)))
    connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, said_of_itself))


def _show(connection: Any, collection: str, digest: str) -> None:
    """Let the view show an index. Another width is another type, which a view's column cannot take."""
    sql = load_pgvector().sql
    view, table = sql.Identifier(collection), sql.Identifier(name_of(collection, digest))
    connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(view))
    connection.execute(sql.SQL("CREATE VIEW {} AS SELECT id, v FROM {}").format(view, table))
    said_of_itself = sql.Literal(json.dumps({"format": FORMAT, "digest": digest}))
    connection.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, said_of_itself))


def _drop_others(connection: Any, collection: str, kept: set[str]) -> None:
    sql = load_pgvector().sql
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    ).fetchall()
    for (name,) in rows:
        if is_ours(name, collection) and name not in kept and _digest(connection, name) is not None:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
