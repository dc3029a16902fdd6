"""What Qdrant and pgvector have in common: the promises of every kind, whatever the server proposes."""

import importlib.util
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from recsys.errors import ArgumentError, IndexServerError, RetrievalError
from recsys.retrieval import planner
from recsys.retrieval.backends import check_kind
from recsys.retrieval.item_index import ItemIndex
from recsys.retrieval.live import LiveIndex
from recsys.retrieval.live_saving import load_live, save_live
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.remote import listed
from tests.retrieval.conftest import Place

pytestmark = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="FAISS is not installed")
if importlib.util.find_spec("faiss") is not None:
    from tests.retrieval.test_kinds import (
        METRICS,
        clustered,
        jagged,
        keeps_its_promises,
        searches,
        true_scores,
    )

KINDS = ("qdrant", "pgvector")


def to_the_server(patch: pytest.MonkeyPatch, index: ItemIndex) -> None:
    """Let the server be asked for everything, however few items are allowed."""
    patch.setattr(planner, "GATHER_ITEMS", 0)
    patch.setattr(planner, "GATHER_SHARE", 0.0)
    patch.setattr(planner, "_worthwhile", lambda filters, engine: filters.n_items)
    proposer: Any = index.backend._proposer  # type: ignore[attr-defined]
    patch.setattr(proposer, "engine", replace(proposer.engine, selector_share=0.0))


@pytest.mark.parametrize("asked", ["as planned", "always"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_server_breaks_a_filter_and_all_answer_as_many_as_exist(
    kind: str, asked: str, place: Place
) -> None:
    before: Any = to_the_server if asked == "always" else lambda patch, index: None

    @settings(max_examples=12)
    @given(case=searches())
    def check(case: dict[str, Any]) -> None:
        keeps_its_promises(kind, case, place(kind), before)

    check()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_a_flat_index_where_the_server_finds_them(
    kind: str, metric: str, place: Place
) -> None:
    vectors, queries = clustered(1000, 8, 0), clustered(70, 8, 0)
    # A server draws its graph anew each time: deep enough a search finds the same in all.
    options = {**place(kind), "ef_search": 400}
    index = ItemIndex.build(vectors, kind=kind, metric=metric, fingerprint="f", options=options)
    flat = ItemIndex.build(vectors, kind="flat", metric=metric, fingerprint="f")
    assert not index.exact
    found, best = index.search(queries, 10), flat.search(queries, 10)
    same = (found.ids == best.ids).all(axis=1)
    assert same.mean() > 0.8
    np.testing.assert_array_equal(found.scores[same], best.scores[same])
    assert index.counters == {"fetch": 70}
    # What is scanned here is the flat index's, bit for bit.
    for filters in ({"allow": np.arange(0, 1000, 7)}, {"exclude": jagged([list(range(700))] * 70)}):
        found, best = index.search(queries, 10, **filters), flat.search(queries, 10, **filters)
        np.testing.assert_array_equal(found.ids, best.ids)
        np.testing.assert_array_equal(found.scores, best.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundredth_of_the_items_is_answered_in_full(
    kind: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = clustered(3000, 8, 1), clustered(20, 8, 1)
    index = ItemIndex.build(vectors, kind=kind, fingerprint="f", options=place(kind))
    allowed = np.random.default_rng(0).choice(3000, 30, replace=False)
    truth = true_scores(vectors, queries, "inner_product")[:, np.sort(allowed)]
    best = np.sort(allowed)[np.argsort(-truth, axis=1, kind="stable")]
    np.testing.assert_array_equal(index.search(queries, 10, allow=allowed).ids, best[:, :10])
    assert index.counters == {"gather": 20}
    to_the_server(monkeypatch, index)
    for k in (10, 30, 40):
        found = index.search(queries, k, allow=allowed).ids
        np.testing.assert_array_equal(found[:, :30], best[:, :k])
        assert (found[:, 30:] == -1).all()
    assert index.counters["selector"] == 60


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_server_leaves_out_or_makes_up_is_mended(
    kind: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = clustered(400, 8, 1), clustered(6, 8, 1)
    index = ItemIndex.build(vectors, kind=kind, fingerprint="f", options=place(kind))
    flat = ItemIndex.build(vectors, kind="flat", fingerprint="f")
    to_the_server(monkeypatch, index)
    monkeypatch.setattr(planner, "FETCH_DEPTH", 10)
    proposer: Any = index.backend._proposer  # type: ignore[attr-defined]
    honest = proposer.propose

    def lie(asked: Any, count: int, allowed: Any) -> Any:
        found = honest(asked, count, None)
        found[:, ::2] = -1
        found[:, 1] = 3
        found[0] = -1
        return np.ascontiguousarray(found[:, : count // 2])

    monkeypatch.setattr(proposer, "propose", lie)
    allowed, exclude = np.arange(0, 400, 2), jagged([[0, 2], [], [4], [6], [8], [10]])
    found = index.search(queries, 10, allow=allowed, exclude=exclude)
    best = flat.search(queries, 10, allow=allowed, exclude=exclude)
    np.testing.assert_array_equal(found.ids, best.ids)
    np.testing.assert_array_equal(found.scores, best.scores)
    assert index.counters["refused"] > 0
    assert index.counters["completed"] == 6


def test_the_shorter_list_is_sent() -> None:
    assert listed(np.array([1, 3]), 5) == ([1, 3], False)
    assert listed(np.array([0, 1, 3]), 5) == ([2, 4], True)
    engine = planner.Engine(exact=False, selectors=True, selector_share=0.3, deepest=1000, longest_list=3)
    from recsys.retrieval.filters import merge_filters

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "GATHER_ITEMS", 0)
        patch.setattr(planner, "FETCH_DEPTH", 1)
        for denied, how in ((3, "selector"), (4, "scan")):
            filters = merge_filters(100, 1, allow=np.arange(denied, 100))
            assert planner.plan(filters, 1, engine)[0].how == how


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_index_is_found_again_without_being_sent_again(
    kind: str, metric: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = clustered(300, 8, 1), clustered(5, 8, 1)
    monkeypatch.setenv("QDRANT_API_KEY", "a-secret-key")
    monkeypatch.setenv("PGPASSWORD", "a-secret-word")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a key without TLS
        index = ItemIndex.build(vectors, kind=kind, metric=metric, fingerprint="f", options=place(kind))
        index.save(tmp_path / "index")
        for module in ("qdrant.build_collection", "pgvector.build_table"):
            monkeypatch.setattr(f"recsys.retrieval.{module}", None)
        loaded = ItemIndex.load(tmp_path / "index", "f")
        for got, want in zip(loaded.search(queries, 7), index.search(queries, 7), strict=True):
            np.testing.assert_array_equal(got, want)
        with pytest.raises(RetrievalError, match="made by another model"):
            ItemIndex.load(tmp_path / "index", "g")
        elsewhere = ItemIndex.load(tmp_path / "index", kind="exact")
    np.testing.assert_array_equal(elsewhere.search(queries, 7).ids, index.search(queries, 7).ids)
    for file in (tmp_path / "index").iterdir():
        assert b"a-secret" not in file.read_bytes()
    assert "a-secret" not in repr(index.options)


@pytest.mark.parametrize("kind", KINDS)
def test_another_index_stands_beside_the_first_and_the_one_before_last_goes(
    kind: str, place: Place, tmp_path: Path
) -> None:
    options, queries = place(kind), clustered(3, 8, 1)
    many = [clustered(200, 8, seed) for seed in range(4)]

    def built(number: int) -> ItemIndex:
        return ItemIndex.build(many[number], kind=kind, fingerprint="f", options=options)

    first = built(0)
    first.save(tmp_path / "first")
    second = built(1)
    second.save(tmp_path / "second")
    # Until an index is saved it takes nobody's place, and the same index takes its own.
    built(2)
    built(3)
    second.save(tmp_path / "second")
    ItemIndex.load(tmp_path / "first").search(queries, 3)
    built(3).save(tmp_path / "third")
    for there in (second, ItemIndex.load(tmp_path / "second"), ItemIndex.load(tmp_path / "third")):
        there.search(queries, 3)
    for broken in (lambda: first.search(queries, 3), lambda: ItemIndex.load(tmp_path / "first")):
        with pytest.raises(IndexServerError, match=r"holds no (table|collection) items_\w+; build the index"):
            broken()


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_another_catalog_or_model_is_another(kind: str, place: Place) -> None:
    options = place(kind)
    names = set()
    for fingerprint, vocabulary, m in (("f", "", 4), ("g", "", 4), ("f", "v", 4), ("f", "", 5)):
        index = ItemIndex.build(
            np.eye(3),
            kind=kind,
            fingerprint=fingerprint,
            vocabulary=vocabulary,
            options=options | {"hnsw_m": m},
        )
        names.add(bytes(index.backend.parts()["digest"].numpy()))
    assert len(names) == 4


def killed(work: Callable[[], object]) -> None:
    """Do something in a child that must not come to its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the child lacks
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


STEPS = {
    "qdrant": ("qdrant_collection.facts_of", "qdrant.CollectionProposer", "saving.golden_answers",
               "qdrant.publish_collection", "qdrant_collection.is_ours"),
    "pgvector": ("pgvector_table._make", "pgvector_table.facts_of", "saving.golden_answers",
                 "pgvector.publish_table", "pgvector_table._show", "pgvector_table._drop_others"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_build_killed_anywhere_leaves_the_old_index_or_the_new(
    kind: str, place: Place, tmp_path: Path
) -> None:
    options, folder = place(kind), tmp_path / "index"
    many = [clustered(100, 8, seed) for seed in range(len(STEPS[kind]) + 2)]

    def build(number: int) -> None:
        ItemIndex.build(many[number], kind=kind, fingerprint="f", options=options).save(folder)

    def build_and_die_at(step: str, number: int) -> None:
        def die(*_: Any, **__: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"recsys.retrieval.{step}", die)
            build(number)

    build(0)
    held = 0
    for number, step in enumerate(STEPS[kind], 1):
        killed(partial(build_and_die_at, step, number))
        if step not in STEPS[kind][: STEPS[kind].index("saving.golden_answers") + 1]:
            held = number
        index = ItemIndex.load(folder)
        np.testing.assert_array_equal(index.vectors.numpy(), many[held])
        assert index.search(many[0][:5], 10).ids.min() >= 0
    build(len(many) - 1)
    np.testing.assert_array_equal(ItemIndex.load(folder).vectors.numpy(), many[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_items_come_and_go_beside_a_server(kind: str, place: Place, tmp_path: Path) -> None:
    vectors, queries = clustered(2000, 8, 1), clustered(4, 8, 1)
    live = LiveIndex(
        ItemIndex.build(vectors, kind=kind, fingerprint="f", options=place(kind)), rebuild_least=1
    )
    best = live.search(queries, 1).ids[:, 0]
    added = 3 * queries
    live.update(add=([5000, 5001, 5002, 5003], added), remove=best)
    live.wait()
    assert live.snapshot().base is live.first
    save_live(live, tmp_path / "index")
    for own in (live, load_live(tmp_path / "index")[0]):
        found = own.search(queries, 20)
        assert found.ids[:, 0].tolist() == [5000, 5001, 5002, 5003]
        assert not np.isin(found.ids, best).any()
        assert (found.ids >= 0).all()
        narrow = own.search(queries, 5, allow=[5001, 7, *best.tolist()]).ids
        assert np.sort(narrow, axis=1).tolist() == [sorted([5001, 7, -1, -1, -1])] * 4
    with pytest.raises(ArgumentError, match=f"build one anew with kind='{kind}'"):
        live.rebuild()


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_a_forked_child_have_connections_of_their_own(kind: str, place: Place) -> None:
    vectors = clustered(300, 8, 1)
    index = ItemIndex.build(vectors, kind=kind, fingerprint="f", options=place(kind))
    wanted = index.search(vectors[:40], 5).ids
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: index.search(vectors[row : row + 1], 5).ids, range(40)))
    np.testing.assert_array_equal(np.concatenate(found), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        same = bool((index.search(vectors[:40], 5).ids == wanted).all())
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(index.search(vectors[:40], 5).ids, wanted)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("qdrant", {}, "kind='qdrant' lies on a server and url is not given"),
        ("qdrant", {"url": "http://h"}, "collection is not given"),
        ("pgvector", {"collection": "c"}, "dsn is not given: .* dsn=postgresql://user@host/database"),
        ("hnsw", {"url": "http://h"}, "url= is not for kind='hnsw': leave it out, or ask for kind='qdrant'"),
        ("auto", {"collection": "c"}, "collection= is not for kind='auto'"),
        ("qdrant", {"url": "http://h", "collection": "a b"}, "collection='a b': give a letter"),
        ("qdrant", {"url": "http://h", "collection": "a" * 41}, "up to 39"),
        ("qdrant", {"url": "h:6333", "collection": "c"}, "is not a server's: write it as http://host:6333"),
        ("qdrant", {"url": "http://h:x", "collection": "c"}, "cannot be read"),
        (
            "qdrant",
            {"url": "http://u:s3cret@h", "collection": "c"},
            "set the environment variable QDRANT",
        ),
        ("qdrant", {"url": "http://h?api-key=s3cret", "collection": "c"}, "may hold no user, password, key"),
        ("pgvector", {"dsn": "postgresql://u:s3cret@h/d", "collection": "c"}, "variable PGPASSWORD"),
        ("pgvector", {"dsn": "host=h password=s3cret", "collection": "c"}, "may hold no password"),
        ("pgvector", {"dsn": "host=h nonsense=s3cret", "collection": "c"}, "dsn= cannot be read"),
    ],
)
def test_addresses_that_are_none_or_hold_a_secret(kind: str, options: dict[str, Any], words: str) -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("qdrant_client")
    for refused in (
        lambda: check_kind(kind, IndexOptions(**options)),
        lambda: ItemIndex.build(np.eye(3), kind=kind, fingerprint="f", options=options),
    ):
        with pytest.raises(ArgumentError, match=words) as caught:
            refused()
        assert "s3cret" not in str(caught.value)


def test_other_kinds_import_no_client_of_a_server(tmp_path: Path) -> None:
    ItemIndex.build(np.eye(3), kind="flat", fingerprint="f").save(tmp_path / "index")
    code = (
        "import sys, numpy as np\nfrom recsys.retrieval.item_index import ItemIndex\n"
        "ItemIndex.load(sys.argv[1]).search(np.eye(3), 2)\n"
        "print([name for name in ('qdrant_client', 'psycopg', 'pgvector') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "index")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
