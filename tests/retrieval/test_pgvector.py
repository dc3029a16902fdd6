"""The `pgvector` kind against a Postgres server of the session."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.errors import ArgumentError, IndexServerError, MissingDependencyError, RetrievalError
from recsys.retrieval import pgvector_library, planner
from recsys.retrieval.backends import check_kind
from recsys.retrieval.item_index import ItemIndex
from tests.retrieval.conftest import Place

pytest.importorskip("pgvector", reason="the extra pgvector is not installed")
psycopg = pytest.importorskip("psycopg", reason="the extra pgvector is not installed")

VECTORS = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)


def built(options: dict[str, object], vectors: Any = VECTORS, **more: Any) -> ItemIndex:
    return ItemIndex.build(vectors, kind="pgvector", fingerprint="f", options=options, **more)


def saved(options: dict[str, object], folder: Path, vectors: Any = VECTORS) -> None:
    built(options, vectors).save(folder)


def rows(options: dict[str, object], statement: str) -> list[Any]:
    with psycopg.connect(str(options["dsn"]), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def tables(options: dict[str, object]) -> set[str]:
    found = rows(options, "SELECT relname FROM pg_class WHERE relkind = 'r'")
    return {name for (name,) in found if name.startswith(f"{options['collection']}_")}


def test_a_view_shows_the_newest_table(place: Place, tmp_path: Path) -> None:
    options = place("pgvector")
    saved(options, tmp_path / "index")
    (name,) = tables(options)
    saved(options, tmp_path / "index", np.hstack([VECTORS, VECTORS]))
    assert len(tables(options)) == 2
    shown = rows(options, f"SELECT id, v::text FROM {options['collection']} ORDER BY id")
    assert [row for row, _ in shown] == list(range(50))
    np.testing.assert_allclose(
        [[float(x) for x in text[1:-1].split(",")] for _, text in shown], np.hstack([VECTORS] * 2), rtol=1e-5
    )
    saved(options, tmp_path / "index", 3 * VECTORS)
    assert len(tables(options)) == 2
    assert name not in tables(options)


def test_a_name_that_is_taken_is_left_alone(place: Place, tmp_path: Path) -> None:
    options = place("pgvector")
    name = options["collection"]
    rows(options, f"CREATE TABLE {name} (x int)")
    rows(options, f"CREATE TABLE {name}_0123456789ab (x int)")
    with pytest.raises(RetrievalError, match=f"{name} is there and is not an item index; choose another"):
        built(options)
    assert tables(options) == {f"{name}_0123456789ab"}
    rows(options, f"DROP TABLE {name}")
    for factor in (1, 2, 3):
        saved(options, tmp_path / "index", factor * VECTORS)
    assert len(tables(options)) == 3
    assert f"{name}_0123456789ab" in tables(options)


def test_a_table_of_another_index_or_with_rows_missing_is_refused(place: Place, tmp_path: Path) -> None:
    options = place("pgvector")
    index = built(options)
    index.save(tmp_path / "index")
    (name,) = tables(options)
    rows(options, f"DELETE FROM {name} WHERE id = 7")
    with pytest.raises(RetrievalError, match=f"table {name}: holds 49 of 50 vectors; drop it and build"):
        ItemIndex.load(tmp_path / "index")
    rows(options, f'COMMENT ON TABLE {name} IS \'{{"format": "recsys item index", "digest": "abc"}}\'')
    with pytest.raises(RetrievalError, match=r"holds another index than this run's .fingerprint abc, not "):
        ItemIndex.load(tmp_path / "index")
    rows(options, f"COMMENT ON TABLE {name} IS 'notes'")
    with pytest.raises(RetrievalError, match="no fingerprint"):
        ItemIndex.load(tmp_path / "index")


def test_a_graph_that_a_filter_leaves_nothing_is_walked_on_and_then_finished(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw answers of the graph alone, as the planner of Postgres chooses it for large tables."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3000, 16)).astype(np.float32)
    queries = rng.standard_normal((8, 16)).astype(np.float32)
    allowed = np.sort(rng.choice(3000, 60, replace=False))
    options = place("pgvector") | {"ef_search": 40}
    honest = pgvector_library.open_session

    def by_the_graph(dsn: str, settings: list[str]) -> Any:
        session = honest(dsn)
        for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
            session.connection.execute(f"SET {setting} = off")
        for setting in settings:
            session.connection.execute(setting)
        return session

    monkeypatch.setattr(planner, "GATHER_ITEMS", 0)
    monkeypatch.setattr(planner, "GATHER_SHARE", 0.0)
    monkeypatch.setattr(planner, "_worthwhile", lambda filters, engine: filters.n_items)
    monkeypatch.setattr("recsys.retrieval.remote.GRAPH_SHARE", 0.0)
    flat = ItemIndex.build(vectors, kind="exact", fingerprint="f").search(queries, 20, allow=allowed).ids
    raw = {}
    for way, settings in (
        ("once", ["SET hnsw.iterative_scan = off"]),
        ("a little further", ["SET hnsw.max_scan_tuples = 200"]),
        ("on", []),
    ):
        opened = partial(by_the_graph, settings=settings)
        monkeypatch.setattr("recsys.retrieval.pgvector.open_session", opened)
        index = built(options, vectors)
        proposed = index.backend._proposer.propose(queries, 20, allowed)  # type: ignore[attr-defined]
        raw[way] = (proposed >= 0).sum(axis=1).mean()
        found = index.search(queries, 20, allow=allowed)
        assert np.isin(found.ids, allowed).all()
        assert (index.counters.get("completed", 0) > 0) == (raw[way] < 20)
        if way == "once":
            np.testing.assert_array_equal(found.ids, flat)
    assert raw["once"] < 10
    assert raw["once"] < raw["a little further"] < 20
    assert raw["on"] == 20


def test_a_server_that_is_away_is_one_line_and_connections_are_made_anew(
    place: Place, postgres_url: str
) -> None:
    options = place("pgvector")
    index = built(options)
    wanted = index.search(VECTORS[:3], 4).ids.tolist()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'recsys index'"
        )
    assert index.search(VECTORS[:3], 4).ids.tolist() == wanted
    away = options | {"dsn": "postgresql://postgres@127.0.0.1:1/postgres"}
    with pytest.raises(IndexServerError, match="//127.0.0.1:1/postgres: cannot be reached") as caught:
        built(away)
    assert "\n" not in str(caught.value)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE nobody_here LOGIN")
        try:
            parts = psycopg.conninfo.conninfo_to_dict(str(options["dsn"])) | {"user": "nobody_here"}
            with pytest.raises(RetrievalError, match="permission denied"):
                built(options | {"dsn": psycopg.conninfo.make_conninfo(**parts)})
        finally:
            connection.execute("DROP ROLE nobody_here")


def test_what_pgvector_does_not_take_is_said_before_anything_is_sent(place: Place) -> None:
    options = place("pgvector")
    for more, words in (
        ({"hnsw_m": 101, "ef_construction": 300}, "hnsw_m = 101: pgvector takes 2 to 100"),
        ({"hnsw_m": 40, "ef_construction": 79}, "ef_construction = 79: pgvector takes twice"),
        ({"ef_construction": 1001}, "ef_construction = 1001"),
    ):
        with pytest.raises(ArgumentError, match=words):
            built(options | more)
    with pytest.raises(ArgumentError, match="up to 2,000 columns, these have 2,001"):
        built(options, np.ones((2, 2001), dtype=np.float32))
    assert tables(options) == set()


def test_without_the_libraries_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pgvector", "psycopg"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            for refused in (
                lambda: built({"dsn": "host=h", "collection": "c"}),
                lambda: check_kind("pgvector"),
            ):
                with pytest.raises(MissingDependencyError, match=r"pip install 'recsys-engine\[pgvector\]'"):
                    refused()


def test_a_database_without_pgvector_or_with_an_old_one_says_so(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
    dsn = postgres_url.replace("/postgres?", "/bare?")
    with pytest.raises(IndexServerError, match="has no pgvector; CREATE EXTENSION vector"):
        pgvector_library.connect(dsn)
    monkeypatch.setattr(pgvector_library, "OLDEST", (99, 0))
    with pytest.raises(RetrievalError, match=r"pgvector 0\.\S+ is too old; ALTER EXTENSION vector UPDATE"):
        pgvector_library.connect(dsn, making=True)
