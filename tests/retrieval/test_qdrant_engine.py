"""The `qdrant` kind over the engine of Qdrant's server: its graph, its filters."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings

from recsys.retrieval.item_index import ItemIndex

if not TYPE_CHECKING:
    pytest.importorskip("faiss")
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
from tests.retrieval.qdrant_engine import EngineStandIn
from tests.retrieval.test_kinds import METRICS, clustered, keeps_its_promises, searches, true_scores
from tests.retrieval.test_servers import to_the_server

_numbers = itertools.count()


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineStandIn]:
    own = EngineStandIn()
    with own.serving():
        yield own


def place(engine: EngineStandIn, m: int = 4, ef: int = 16, ef_search: int = 128) -> dict[str, object]:
    name = f"items_{next(_numbers)}"
    graph = {"hnsw_m": m, "ef_construction": ef, "ef_search": ef_search}
    return {"url": engine.url, "collection": name, **graph}


def test_no_filter_is_broken_and_all_are_answered_in_full(engine: EngineStandIn) -> None:
    @settings(max_examples=10)
    @given(case=searches())
    def check(case: dict[str, Any]) -> None:
        keeps_its_promises("qdrant", case, place(engine), to_the_server)

    check()


@pytest.mark.parametrize("metric", METRICS[:2])
def test_options_build_and_search_its_graph(metric: str, engine: EngineStandIn) -> None:
    vectors, queries = clustered(2000, 16, 0), clustered(40, 16, 0)
    best = np.argsort(-true_scores(vectors, queries, metric), axis=1)[:, :10]

    def recall(options: dict[str, object]) -> float:
        index = ItemIndex.build(vectors, kind="qdrant", metric=metric, fingerprint="f", options=options)
        found = index.search(queries, 10).ids
        assert engine.indexed == 2000
        return float(np.mean([len(np.intersect1d(f, b)) / 10 for f, b in zip(found, best, strict=True)]))

    sparse, dense = place(engine, m=3, ef=8), place(engine, m=16, ef=64)
    # The graph of the second is that of the first: how it is searched is no part of it.
    hasty, patient = (recall(sparse | {"ef_search": ef}) for ef in (1, 400))
    assert hasty < patient
    assert hasty < 0.9
    assert recall(dense) > 0.95


def test_what_its_graph_leaves_short_at_a_hundredth_is_finished(
    engine: EngineStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = clustered(3000, 16, 0), clustered(30, 16, 0)
    index = ItemIndex.build(vectors, kind="qdrant", fingerprint="f", options=place(engine, m=16, ef=64))
    allowed = np.sort(np.random.default_rng(0).choice(3000, 30, replace=False))
    to_the_server(monkeypatch, index)
    found = index.search(queries, 20, allow=allowed).ids
    truth = true_scores(vectors, queries, "inner_product")[:, allowed]
    np.testing.assert_array_equal(found, allowed[np.argsort(-truth, axis=1, kind="stable")[:, :20]])
    assert index.counters["completed"] > 0
    denied = np.arange(0, 3000, 4)
    left = index.search(queries, 20, deny=denied).ids
    assert not np.isin(left, denied).any()
    assert (left >= 0).all()
