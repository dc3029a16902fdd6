"""The `pgvector` kind: a table of Postgres with pgvector's graph proposes the items.

A filter leaves pgvector's graph next to nothing (0 to 5 of 100 answers at 5% allowed). From 0.8 on it can
walk on until it has enough or has looked at hnsw.max_scan_tuples; what it leaves short then is finished here.
"""

from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor

from recsys.errors import IndexServerError
from recsys.retrieval.addresses import check_collection, check_dsn
from recsys.retrieval.backends import Parts
from recsys.retrieval.connections import Connections
from recsys.retrieval.filters import Ints
from recsys.retrieval.metric import Floats32, Metric
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.pgvector_library import Session, load_pgvector, open_session, said, shown
from recsys.retrieval.pgvector_table import build_table, check_table, gone, operator, publish_table
from recsys.retrieval.remote import (
    PART,
    RemoteBackend,
    as_rows,
    backend_on_server,
    digest_part,
    listed,
    name_of,
    server_engine,
)

_DEEPEST = 1000
"""Greatest hnsw.ef_search."""


class TableProposer:
    """A table that `build_table` made.

    Args:
        options: `dsn`, `collection` and `ef_search` of them.
        digest: of the index.
        n_items: rows V.
        l2: whether distances are Euclidean.

    Raises:
        RetrievalError: the table is of another index.
        IndexServerError: it is not there, or the server cannot be reached.
    """

    def __init__(self, options: IndexOptions, digest: str, n_items: int, *, l2: bool) -> None:
        self._psycopg = load_pgvector()
        self._dsn, self._collection, self._digest = options.dsn, options.collection, digest
        self._name = name_of(options.collection, digest)
        self._ef_search = min(options.ef_search, _DEEPEST)
        self._n_items = n_items
        self._operator = operator(l2)[0]
        self._connections: Connections[Session] = Connections(
            partial(open_session, options.dsn),
            lambda session: session.connection.close(),
            self._psycopg.OperationalError,
        )
        self.engine = server_engine(_DEEPEST)
        self._asked(
            lambda session: check_table(session.connection, self._dsn, self._collection, digest, n_items)
        )

    def propose(self, queries: Floats32, count: int, allowed: Ints | None) -> Ints:
        """See `Proposer`."""
        sql = self._psycopg.sql
        where, ids = sql.SQL(""), None
        if allowed is not None:
            ids, others = listed(allowed, self._n_items)
            where = sql.SQL(f"WHERE id {'<> ALL' if others else '= ANY'} (%(ids)s::int4[])")
        # An array is one row to fetch, where ids are as many as answers.
        statement = sql.SQL(
            "SELECT ARRAY(SELECT id FROM {} {} ORDER BY v {} %(query)s LIMIT %(count)s)"
        ).format(sql.Identifier(self._name), where, sql.SQL(self._operator))
        found: list[list[int]] = []
        for start in range(0, len(queries), PART):
            part = queries[start : start + PART]
            found += self._asked(partial(self._search, statement=statement, part=part, count=count, ids=ids))
        return as_rows(found)

    def parts(self) -> dict[str, Tensor]:
        """What names the table."""
        return digest_part(self._digest)

    def publish(self) -> None:
        """See `ServerProposer`."""
        publish_table(self._dsn, self._collection, self._digest)

    def _search(
        self, session: Session, *, statement: Any, part: Floats32, count: int, ids: list[int] | None
    ) -> list[list[int]]:
        depth = min(_DEEPEST, max(self._ef_search, count))
        # One statement needs no pipeline, which would log a line of its own where the server has gone.
        with nullcontext() if len(part) == 1 else session.connection.pipeline():
            if session.ef_search != depth:
                session.connection.execute("SELECT set_config('hnsw.ef_search', %s, false)", (str(depth),))
                session.ef_search = depth
            cursors = [
                session.connection.execute(statement, {"query": query, "count": count, "ids": ids})
                for query in part
            ]
            return [cursor.fetchone()[0] for cursor in cursors]

    def _asked(self, work: Any) -> Any:
        """Do something with a session.

        Raises:
            RetrievalError: what `work` raises.
            IndexServerError: the server cannot be reached, refuses, or lost the table.
        """
        try:
            return self._connections.call(work)
        except self._psycopg.errors.UndefinedTable:
            raise gone(self._dsn, self._name) from None
        except self._psycopg.Error as error:
            raise IndexServerError(
                f"{shown(self._dsn)}: the index server cannot be asked ({said(error)}); see to the server"
            ) from None


def build(
    vectors: Tensor,
    metric: Metric,
    options: IndexOptions,
    parts: Parts | None = None,
    catalog: str = "",
) -> RemoteBackend:
    """Make the table, or open the one that was made of these vectors.

    Args:
        vectors: (V, d).
        metric: of the scores.
        options: with `dsn` and `collection`.
        parts: what `TableProposer.parts` gave, to open an index; None builds one.
        catalog: names the encoder and the item ids.

    Raises:
        ArgumentError: an address or option that pgvector does not take.
        MissingDependencyError: psycopg or pgvector is not installed.
        RetrievalError: the server refuses, or holds another index there.
        IndexServerError: it cannot be reached, or the table is not there.
    """
    check_collection(options.collection)
    check_dsn(options.dsn)
    l2 = metric == "l2"
    return backend_on_server(
        vectors,
        metric,
        options,
        parts,
        catalog,
        put=lambda digest, own: build_table(options.dsn, options.collection, digest, own, options, l2=l2),
        proposer=lambda digest, n_items: TableProposer(options, digest, n_items, l2=l2),
    )
