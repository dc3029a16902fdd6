"""Every kind of index keeps the promises of the exact one, whatever it finds."""

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.errors import ArgumentError, ConfigError, RetrievalError
from recsys.retrieval import planner
from recsys.retrieval.item_index import ItemIndex
from recsys.retrieval.kind_choice import kind_for
from recsys.retrieval.options import IndexOptions

if importlib.util.find_spec("faiss") is None:
    pytest.skip("FAISS is not installed", allow_module_level=True)

KINDS = ("flat", "ivf", "ivfpq", "hnsw")
APPROXIMATE = KINDS[1:]
METRICS = ("inner_product", "l2", "cosine")
Floats = NDArray[np.float32]


def true_scores(vectors: Floats, queries: Floats, metric: str) -> NDArray[np.float64]:
    v, q = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        v, q = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (v, q))
    return -np.square(q[:, None] - v[None]).sum(axis=2) if metric == "l2" else q @ v.T


def clustered(n: int, d: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, d))
    return (centres[rng.integers(0, 20, n)] + 0.3 * rng.standard_normal((n, d))).astype(np.float32)


def jagged(rows: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.array([i for row in rows for i in row], dtype=np.int64)
    return ids, np.cumsum([0, *map(len, rows)]).astype(np.int64)


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "n": draw(st.integers(16, 300)),
        "b": draw(st.integers(1, 12)),
        "d": draw(st.integers(1, 5)),
        "k": draw(st.sampled_from([1, 3, 10, 40, 400])),
        "reach": draw(st.sampled_from([0, 1, 3])),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "exclude_share": draw(st.sampled_from([0.0, 0.05, 0.9, 1.0])),
        "allow_share": draw(st.sampled_from([None, 0.0, 0.01, 0.3, 0.97, 1.0])),
        "deny_share": draw(st.sampled_from([None, 0.0, 0.03, 0.6, 1.0])),
        "metric": draw(st.sampled_from(METRICS)),
        # Small limits bring every way of the planner into reach of a small catalog.
        "gather": draw(st.sampled_from([0, 5, 20_000])),
        "depth": draw(st.sampled_from([0, 10, 1024])),
    }


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(case=searches())
def test_no_kind_ever_breaks_a_filter_and_all_answer_as_many_as_exist(
    kind: str, case: dict[str, Any]
) -> None:
    keeps_its_promises(kind, case)


def keeps_its_promises(
    kind: str,
    case: dict[str, Any],
    options: dict[str, object] | None = None,
    before: Callable[[pytest.MonkeyPatch, ItemIndex], None] = lambda patch, index: None,
) -> ItemIndex:
    """Search once as a case says, and look at every answer.

    Args:
        kind: of index.
        case: one of `searches`.
        options: of the index.
        before: called once it is built, with a patch that lasts for the search.

    Returns:
        The index.
    """
    rng = np.random.default_rng(case["seed"])
    n, b, k, metric = case["n"], case["b"], case["k"], case["metric"]
    vectors = rng.integers(-case["reach"], case["reach"] + 1, (n, case["d"])).astype(np.float32)
    queries = rng.integers(-3, 4, (b, case["d"])).astype(np.float32)

    def pick(share: float | None) -> list[int] | None:
        return None if share is None else np.flatnonzero(rng.random(n) < share).tolist()

    exclude = [[*(pick(case["exclude_share"]) or []), *rng.integers(0, n, 2).tolist()] for _ in range(b)]
    allow, deny = pick(case["allow_share"]), pick(case["deny_share"])
    index = ItemIndex.build(vectors, kind=kind, metric=metric, fingerprint="f", options=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "GATHER_ITEMS", case["gather"])
        patch.setattr(planner, "FETCH_DEPTH", case["depth"])
        before(patch, index)
        scores, ids = index.search(queries, k, exclude=jagged(exclude), allow=allow, deny=deny)

    truth = true_scores(vectors, queries, metric)
    for row in range(b):
        pool = (set(range(n)) if allow is None else set(allow)) - set(deny or []) - set(exclude[row])
        found = ids[row][ids[row] >= 0].tolist()
        assert len(found) == len(set(found)) == min(k, len(pool))
        assert set(found) <= pool
        assert ids[row, len(found) :].tolist() == [-1] * (k - len(found))
        np.testing.assert_allclose(scores[row, : len(found)], truth[row, found], rtol=1e-5, atol=1e-5)
        order = sorted(range(len(found)), key=lambda i: (-scores[row, i], found[i]))
        assert order == list(range(len(found)))
        if kind == "flat" and metric != "cosine":
            best = sorted(pool, key=lambda i: (-truth[row, i], i))[:k]
            assert found == best
    assert index.counters.get("refused", 0) == 0
    return index


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_approximate_kinds_find_most_of_the_best(kind: str, metric: str) -> None:
    vectors, queries = clustered(3000, 16, 0), clustered(40, 16, 0)
    options = {"nprobe": 20} if kind != "hnsw" else {}
    index = ItemIndex.build(vectors, kind=kind, metric=metric, fingerprint="f", options=options)
    assert not index.exact
    found = index.search(queries, 10).ids
    best = np.argsort(-true_scores(vectors, queries, metric), axis=1)[:, :10]
    recall = np.mean([len(set(f) & set(b)) / 10 for f, b in zip(found.tolist(), best.tolist(), strict=True)])
    assert recall > 0.9
    assert index.counters == {"fetch": 40}


@pytest.mark.parametrize(
    ("kind", "field", "weak", "strong"),
    [
        ("ivf", "nprobe", {"nprobe": 1}, {"nprobe": 50}),
        ("ivf", "nlist", {"nlist": 70, "nprobe": 1}, {"nlist": 2, "nprobe": 1}),
        ("ivfpq", "refine", {"nprobe": 70, "refine": 1}, {"nprobe": 70, "refine": 30}),
        ("hnsw", "ef_search", {"ef_search": 1, "hnsw_m": 4}, {"ef_search": 400, "hnsw_m": 4}),
        ("hnsw", "hnsw_m", {"ef_search": 10, "hnsw_m": 2}, {"ef_search": 10, "hnsw_m": 32}),
        (
            "hnsw",
            "ef_construction",
            {"ef_construction": 1, "hnsw_m": 4},
            {"ef_construction": 200, "hnsw_m": 4},
        ),
    ],
)
def test_options_trade_recall(kind: str, field: str, weak: dict[str, Any], strong: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((2800, 16)).astype(np.float32)
    queries = rng.standard_normal((60, 16)).astype(np.float32)
    best = np.argsort(-true_scores(vectors, queries, "inner_product"), axis=1)[:, :10]

    def recall(options: dict[str, Any]) -> float:
        index = ItemIndex.build(vectors, kind=kind, fingerprint="f", options=options)
        found = index.search(queries, 10).ids
        return float(
            np.mean([len(set(f) & set(b)) for f, b in zip(found.tolist(), best.tolist(), strict=True)])
        )

    assert recall(strong) > recall(weak), field


def test_the_seed_moves_the_centres_and_the_same_seed_does_not() -> None:
    vectors = clustered(1000, 8, 3)
    centres = [
        ItemIndex.build(vectors, kind="ivf", fingerprint="f", options={"seed": seed}).backend.parts()[
            "centres"
        ]
        for seed in (0, 0, 1)
    ]
    assert bool((centres[0] == centres[1]).all())
    assert not bool((centres[0] == centres[2]).all())


def test_options_out_of_range_and_unknown_ones_are_refused() -> None:
    for options, words in (
        ({"ef_search": 0}, "index.ef_search = 0 is out of range"),
        ({"efsearch": 3}, "did you mean 'ef_search'"),
        ({"nprobe": "many"}, "is not an int"),
    ):
        with pytest.raises(ConfigError, match=words):
            ItemIndex.build(np.eye(3), fingerprint="f", options=options)
    assert IndexOptions(nlist=9).lists(10_000) == 9
    assert IndexOptions().lists(10) == 1
    assert IndexOptions().probes(100) == 13


def test_codes_need_sixteen_vectors() -> None:
    with pytest.raises(ArgumentError, match="from 15 vectors"):
        ItemIndex.build(np.eye(15), kind="ivfpq", fingerprint="f")


@pytest.mark.parametrize(
    ("kind", "allow", "deny", "rows", "how"),
    [
        ("flat", 100, 0, 1, "gather"),
        ("flat", 0, 400, 1, "selector"),
        ("flat", 0, 400, 8, "gather"),
        ("flat", 0, 30, 1, "fetch"),
        ("hnsw", 100, 0, 1, "gather"),
        ("hnsw", 0, 2500, 1, "scan"),
        ("hnsw", 0, 400, 1, "selector"),
        ("hnsw", 0, 30, 1, "fetch"),
        ("ivf", 0, 2000, 1, "selector"),
    ],
)
def test_each_filter_is_met_in_the_cheapest_safe_way(
    kind: str, allow: int, deny: int, rows: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "GATHER_ITEMS", 200)
    monkeypatch.setattr(planner, "FETCH_DEPTH", 60)
    monkeypatch.setattr("recsys.retrieval.filters.DENY_AS_EXCLUSION", 10)
    vectors = clustered(3000, 8, 1)
    index = ItemIndex.build(vectors, kind=kind, fingerprint="f", options={"nprobe": 70})
    denied = np.arange(deny)
    found = index.search(vectors[:rows], 10, allow=np.arange(allow) if allow else None, deny=denied)
    assert {way for way in index.counters if way in ("gather", "fetch", "selector", "scan")} == {how}
    assert found.ids.min() >= deny
    assert not allow or found.ids.max() < allow


def test_many_seen_items_send_a_graph_to_the_scan() -> None:
    vectors = clustered(3000, 8, 1)
    index = ItemIndex.build(vectors, kind="hnsw", fingerprint="f")
    seen = [list(range(2000)), [5]]
    found = index.search(vectors[:2], 10, exclude=jagged(seen))
    assert index.counters == {"scan": 1, "fetch": 1}
    assert found.ids[0].min() >= 2000
    assert 5 not in found.ids[1]


def test_an_index_that_ignores_its_selector_breaks_no_filter_and_is_counted() -> None:
    vectors = clustered(3000, 8, 1)
    index = ItemIndex.build(vectors, kind="hnsw", fingerprint="f")
    proposer: Any = index.backend._proposer  # type: ignore[attr-defined]
    honest = proposer.propose
    proposer.propose = lambda queries, count, allowed: honest(queries, count, None)
    allowed = np.concatenate([np.arange(0, 3000, 2), np.arange(1, 1500, 2)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "GATHER_ITEMS", 0)
        patch.setattr(planner, "FETCH_DEPTH", 0)
        found = index.search(vectors[1501:1541:2], 10, allow=allowed)
    assert np.isin(found.ids, allowed).all()
    assert index.counters["refused"] > 0
    assert index.counters["completed"] > 0


def test_a_batch_that_is_completed_as_a_whole_keeps_its_order() -> None:
    # Its longer list puts the first query into the second step: to be completed, the two stand the other way.
    vectors = clustered(3000, 8, 1)
    index = ItemIndex.build(vectors, kind="hnsw", fingerprint="f")
    proposer: Any = index.backend._proposer  # type: ignore[attr-defined]
    proposer.propose = lambda queries, count, allowed: np.full((len(queries), count), -1)
    exclude = jagged([[5, 7, 9, 11, 2000], [6]])
    found = index.search(vectors[:2], 3, exclude=exclude)
    wanted = ItemIndex.build(vectors, kind="flat", fingerprint="f").search(vectors[:2], 3, exclude=exclude)
    assert index.counters["completed"] == 2
    np.testing.assert_array_equal(found.ids, wanted.ids)


def test_a_category_is_gathered_once_and_others_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(3000, 8, 1)
    index = ItemIndex.build(vectors, kind="flat", fingerprint="f")
    cache = index.backend._gathered  # type: ignore[attr-defined]
    made: list[int] = []
    build = cache._make

    def count(allowed: NDArray[np.int64]) -> Any:
        made.append(len(allowed))
        return build(allowed)

    monkeypatch.setattr(cache, "_make", count)
    for allow in ([1, 2, 3], [3, 2, 1], [4, 5], [1, 2, 3]):
        index.search(vectors[:2], 2, allow=allow)
    assert made == [3, 2]
    monkeypatch.setattr(cache, "_bytes_kept", 3 * (8 * 4 + 8))
    index.search(vectors[:2], 2, allow=[7])
    assert len(cache) == 1


def test_kept_categories_answer_as_fresh_ones_whatever_comes_between() -> None:
    """Categories in turn, lists changed in place and in any order, on several threads and in little room."""
    vectors = clustered(2000, 8, 1)
    queries = clustered(6, 8, 1)
    rng = np.random.default_rng(0)
    index = ItemIndex.build(vectors, kind="flat", fingerprint="f")
    cache = index.backend._gathered  # type: ignore[attr-defined]
    cache._bytes_kept = 250 * (8 * 4 + 8)  # two or three of the lists below
    lists = [np.sort(rng.choice(2000, 100, replace=False)) for _ in range(4)]
    # Same length, ends and sum as the first: only what is between tells them apart.
    twin = lists[0].copy()
    low, high = np.flatnonzero(np.diff(twin[:50]) > 1)[1], np.flatnonzero(np.diff(twin[50:-1]) > 1)[0] + 50
    twin[low] += 1
    twin[high + 1] -= 1
    lists.append(twin)
    assert twin.sum() == lists[0].sum()
    assert len(np.unique(twin)) == 100
    truth = true_scores(vectors, queries, "inner_product")

    def check(allowed: NDArray[np.int64], given: NDArray[np.int64]) -> None:
        ids = index.search(queries, 10, allow=given).ids
        scored = truth[:, allowed]
        want = allowed[np.argsort(-scored, axis=1, kind="stable")[:, :10]]
        np.testing.assert_array_equal(ids, want)

    def many(seed: int) -> None:
        own = np.random.default_rng(seed)
        given = np.empty(100, dtype=np.int64)
        for _ in range(60):
            allowed = lists[own.integers(len(lists))]
            given[:] = allowed  # the same array with other ids in it
            if own.random() < 0.3:
                own.shuffle(given)
            check(allowed, given)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(many, range(4)))
    assert 0 < cache._bytes <= cache._bytes_kept
    assert cache._bytes == sum(cache._size(kept) for kept, _ in cache._kept.values())


def test_two_lists_with_one_digest_are_not_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.retrieval.gathered.digest", lambda ids: 7)
    vectors = clustered(500, 8, 1)
    index = ItemIndex.build(vectors, kind="flat", fingerprint="f")
    for allowed in ([1, 2, 3], [4, 5, 6], [1, 2, 3], [4, 5, 6]):
        found = index.search(vectors[:2], 3, allow=allowed)
        assert np.sort(found.ids, axis=1).tolist() == [allowed, allowed]


@pytest.mark.parametrize("metric", METRICS)
def test_a_batch_too_large_for_one_call_is_answered_alike(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = clustered(2000, 8, 1), clustered(20, 8, 1)
    index = ItemIndex.build(vectors, kind="flat", metric=metric, fingerprint="f")
    allowed = np.arange(0, 2000, 3)
    exclude = jagged([list(range(0, 3 * row, 3)) for row in range(20)])
    alone = index.search(queries, 10, allow=allowed, exclude=exclude)
    monkeypatch.setattr("recsys.retrieval.flat.PRODUCTS_ON_ONE_THREAD", 0)
    by_faiss = index.search(queries, 10, allow=allowed, exclude=exclude)
    np.testing.assert_array_equal(alone.ids, by_faiss.ids)
    np.testing.assert_array_equal(alone.scores, by_faiss.scores)


def test_the_guide_changes_kind_with_the_catalog_and_says_why() -> None:
    kinds = [kind_for(n)[0] for n in (10, 100_000, 100_001, 1_000_000, 1_000_001)]
    assert kinds == ["flat", "flat", "hnsw", "hnsw", "ivf"]
    assert "100,001 items" in kind_for(100_001)[1]


def test_saved_parts_that_do_not_fit_are_refused() -> None:
    import torch

    from recsys.retrieval.backends import build_backend

    vectors = torch.from_numpy(clustered(200, 8, 1))
    options = IndexOptions()
    for kind, name, value in (
        ("hnsw", "links", 200),
        ("hnsw", "links", -2),
        ("hnsw", "levels", 99),
        ("hnsw", "offsets", 3),
        ("hnsw", "entry", 200),
        ("ivf", "lists", 99),
        ("ivfpq", "lists", -1),
    ):
        parts = dict(build_backend(kind, vectors, "l2", options).parts())
        parts[name] = parts[name].clone()
        parts[name][0] = value
        with pytest.raises(RetrievalError, match="build the index again"):
            build_backend(kind, vectors, "l2", options, parts)


@pytest.mark.parametrize("metric", METRICS[:2])
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_index_from_saved_parts_answers_bit_for_bit_the_same(kind: str, metric: Any) -> None:
    import torch

    from recsys.retrieval.backends import build_backend
    from recsys.retrieval.filters import merge_filters

    vectors = torch.from_numpy(clustered(2000, 7, 1))
    options = IndexOptions(nprobe=3)
    built = build_backend(kind, vectors, metric, options)
    again = build_backend(kind, vectors, metric, options, built.parts())
    filters = merge_filters(2000, 30)
    for left, right in zip(
        built.search(vectors[:30] * 2, 20, filters), again.search(vectors[:30] * 2, 20, filters), strict=True
    ):
        np.testing.assert_array_equal(left.numpy(), right.numpy())
