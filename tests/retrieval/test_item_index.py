import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.retrieval import metric as metrics
from recsys.retrieval.item_index import ItemIndex

without_faiss = importlib.util.find_spec("faiss") is None
needs_faiss = pytest.mark.skipif(without_faiss, reason="FAISS is not installed")
KINDS = ("exact", pytest.param("flat", marks=needs_faiss))
METRICS = ("inner_product", "l2", "cosine")


def oracle(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    metric: str,
    exclude: list[list[int]],
    allow: list[int] | None,
    deny: list[int] | None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Every score in float64 and a plain sort."""
    v, q = vectors.astype(np.float64), queries.astype(np.float64)
    scores = -np.square(q[:, None] - v[None]).sum(axis=2) if metric == "l2" else q @ v.T
    out_scores = np.full((len(q), k), -np.inf)
    out_ids = np.full((len(q), k), -1, dtype=np.int64)
    for row in range(len(q)):
        pool = set(range(len(v))) if allow is None else set(allow)
        pool -= set(exclude[row]) | set(deny or [])
        best = sorted(pool, key=lambda i: (-scores[row, i], i))[:k]
        out_ids[row, : len(best)] = best
        out_scores[row, : len(best)] = scores[row, best]
    return out_scores, out_ids


def jagged(rows: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.array([i for row in rows for i in row], dtype=np.int64)
    return ids, np.cumsum([0, *map(len, rows)]).astype(np.int64)


@st.composite
def searches(draw: st.DrawFn) -> dict[str, object]:
    n = draw(st.integers(1, 40))
    return {
        "n": n,
        "d": draw(st.integers(1, 5)),
        "b": draw(st.integers(1, 6)),
        "k": draw(st.integers(1, 45)),
        # A narrow range makes duplicate vectors and massive ties; all products are exact in float32.
        "reach": draw(st.sampled_from([0, 1, 3])),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "exclude_share": draw(st.sampled_from([0.0, 0.2, 0.9, 1.0])),
        "allow_share": draw(st.sampled_from([None, 0.0, 0.3, 1.0])),
        "deny_share": draw(st.sampled_from([None, 0.0, 0.3, 1.0])),
    }


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(case=searches())
def test_answers_under_filters_and_ties_are_those_of_a_float64_sort(
    kind: str, metric: str, case: dict[str, object]
) -> None:
    n, d, b, k, reach = (int(str(case[name])) for name in ("n", "d", "b", "k", "reach"))
    rng = np.random.default_rng(int(str(case["seed"])))
    vectors = rng.integers(-reach, reach + 1, (n, d)).astype(np.float32)
    queries = rng.integers(-3, 4, (b, d)).astype(np.float32)

    def pick(share: object) -> list[int] | None:
        return None if share is None else np.flatnonzero(rng.random(n) < float(str(share))).tolist()

    exclude = [[*(pick(case["exclude_share"]) or []), *rng.integers(0, n, 2).tolist()] for _ in range(b)]
    allow, deny = pick(case["allow_share"]), pick(case["deny_share"])
    index = ItemIndex.build(vectors, kind=kind, metric=metric, fingerprint="f")
    scores, ids = index.search(queries, k, exclude=jagged(exclude), allow=allow, deny=deny)
    want_scores, want_ids = oracle(vectors, queries, k, metric, exclude, allow, deny)
    np.testing.assert_array_equal(ids, want_ids)
    np.testing.assert_array_equal(scores, want_scores)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 7, 300])
def test_answers_on_real_numbers_are_those_of_float64_up_to_rounding(
    kind: str, metric: str, batch: int
) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((700, 24)).astype(np.float32)
    vectors[100:120] = vectors[0]
    queries = rng.standard_normal((batch, 24)).astype(np.float32)
    exclude = [rng.integers(0, 700, rng.integers(0, 200)).tolist() for _ in range(batch)]
    index = ItemIndex.build(vectors, kind=kind, metric=metric, fingerprint="f")
    scores, ids = index.search(queries, 30, exclude=jagged(exclude))
    if metric == "cosine":
        vectors, queries = (
            x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (vectors, queries)
        )
    want_scores, want_ids = oracle(vectors, queries, 30, metric, exclude, None, None)
    np.testing.assert_allclose(scores, want_scores, rtol=2e-5, atol=2e-5)
    same = ids == want_ids
    assert same.mean() > 0.99
    for row, place in zip(*np.nonzero(~same), strict=True):
        assert abs(want_scores[row, place] - scores[row, place]) < 2e-5
        assert ids[row, place] not in exclude[row]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hand_worked_l2_search_scores_minus_the_squared_distance(kind: str) -> None:
    index = ItemIndex.build(np.array([[0.0, 0], [3, 4], [1, 0]]), kind=kind, metric="l2", fingerprint="f")
    scores, ids = index.search(np.array([[0.0, 0.0]]), 3)
    assert ids.tolist() == [[0, 2, 1]]
    assert scores.tolist() == [[0.0, -1.0, -25.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_l2_keeps_small_distances_between_long_vectors(kind: str) -> None:
    vectors = np.full((50, 4), 1000.0, dtype=np.float32)
    vectors[:, 0] += np.arange(50, dtype=np.float32)[::-1] / 64
    index = ItemIndex.build(vectors, kind=kind, metric="l2", fingerprint="f")
    scores, ids = index.search(np.full((1, 4), 1000.0, dtype=np.float32), 3)
    assert ids.tolist() == [[49, 48, 47]]
    np.testing.assert_allclose(scores, [[0, -1 / 64**2, -4 / 64**2]], rtol=1e-6)


def test_many_answers_of_an_l2_search_need_no_second_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("scanned again")

    monkeypatch.setattr(metrics, "_scan", forbidden)
    rng = np.random.default_rng(0)
    # Far from the origin, so that rounding is wide beside the gaps between 1,500 distances.
    vectors, queries = ((40 + rng.standard_normal((n, 8))).astype(np.float32) for n in (4000, 20))
    found = ItemIndex.build(vectors, kind="exact", metric="l2", fingerprint="f").search(queries, 1500)
    wide = vectors.astype(np.float64)
    for row, query in enumerate(queries):
        distances = np.square(wide - query).sum(axis=1)
        np.testing.assert_allclose(found.scores[row], -np.sort(distances)[:1500], rtol=1e-6)
        np.testing.assert_allclose(-found.scores[row], distances[found.ids[row]], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_cosine_ignores_lengths_and_leaves_the_given_vectors_alone(kind: str) -> None:
    vectors = np.array([[10.0, 0], [0.1, 0.1], [0, 0]], dtype=np.float32)
    given = vectors.copy()
    index = ItemIndex.build(vectors, kind=kind, metric="cosine", fingerprint="f")
    scores, ids = index.search(np.array([[5.0, 5.0]], dtype=np.float32), 3)
    assert ids.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(scores, [[1, 0.5**0.5, 0]], rtol=1e-6)
    np.testing.assert_array_equal(vectors, given)


@pytest.mark.parametrize("kind", KINDS)
def test_later_changes_of_the_given_vectors_do_not_reach_the_index(kind: str) -> None:
    weight = torch.eye(3)
    index = ItemIndex.build(weight, kind=kind, fingerprint="f")
    weight.zero_()
    assert index.search(torch.eye(3), 1).ids.tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_answered_by_tensors_and_arrays_by_arrays(kind: str) -> None:
    index = ItemIndex.build(torch.eye(3), kind=kind, fingerprint="f")
    tensors = index.search(torch.eye(3, dtype=torch.float64, requires_grad=True), 2)
    arrays = index.search(np.eye(3), 2)
    assert tensors.scores.dtype == torch.float32
    assert tensors.ids.dtype == torch.int64
    assert arrays.scores.dtype == np.float32
    assert arrays.ids.dtype == np.int64
    np.testing.assert_array_equal(tensors.ids.numpy(), arrays.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_no_queries_and_empty_allow_lists_have_empty_answers(kind: str) -> None:
    index = ItemIndex.build(np.eye(3), kind=kind, fingerprint="f")
    assert index.search(np.zeros((0, 3)), 2).ids.shape == (0, 2)
    nothing = index.search(np.eye(3), 2, allow=[])
    assert np.all(nothing.ids == -1)
    assert np.all(nothing.scores == -np.inf)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_deny_list_gives_the_same_as_a_short_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    index = ItemIndex.build(rng.standard_normal((200, 8)), kind=kind, fingerprint="f")
    queries, deny = rng.standard_normal((4, 8)), rng.permutation(200)[:150]
    short = index.search(queries, 60, deny=deny)
    monkeypatch.setattr("recsys.retrieval.filters.DENY_AS_EXCLUSION", 10)
    long = index.search(queries, 60, deny=deny)
    np.testing.assert_array_equal(short.ids, long.ids)
    assert np.all((short.ids >= 0).sum(axis=1) == 50)


BAD_SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("k=0", {"k": 0}),
    ("k=1.5", {"k": 1.5}),
    ("k=True", {"k": True}),
    ("width 2", {"queries": np.zeros((1, 2))}),
    ("two dimensions", {"queries": np.zeros(3)}),
    ("queries row 1 holds NaN", {"queries": np.array([[0, 0, 0], [0, np.nan, 0]])}),
    ("queries is int64", {"queries": np.zeros((1, 3), dtype=np.int64)}),
    ("allow holds 4", {"allow": [0, 4]}),
    ("deny holds -1", {"deny": np.array([-1])}),
    ("deny is float64", {"deny": np.array([0.5])}),
    ("exclude ids holds 9", {"exclude": (np.array([9]), np.array([0, 1]))}),
    ("exclude offsets must be 2", {"exclude": (np.array([1]), np.array([0, 0, 1]))}),
    ("exclude offsets must be 2", {"exclude": (np.array([1, 2]), np.array([0, 1]))}),
    ("exclude must be a pair", {"exclude": [1, 2]}),
    ("scores overflow", {"queries": np.full((1, 3), 3e38)}),
]


@pytest.mark.parametrize(("words", "change"), BAD_SEARCHES, ids=[words for words, _ in BAD_SEARCHES])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_search_is_refused_in_one_line(kind: str, words: str, change: dict[str, Any]) -> None:
    index = ItemIndex.build(
        np.array([[3, 0, 0], [0, 1, 0], [3.0, 3, 3]]), kind=kind, metric="l2", fingerprint="f"
    )
    arguments: dict[str, Any] = {"queries": np.zeros((1, 3)), "k": 1} | change
    with pytest.raises(ArgumentError) as caught:
        index.search(arguments.pop("queries"), arguments.pop("k"), **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "vectors", "options"),
    [
        ("vectors row 1 holds NaN", np.array([[0.0], [np.inf]]), {}),
        ("at least one item", np.zeros((0, 3)), {}),
        ("two dimensions", np.zeros(3), {}),
        ("kind 'tree' is not known", np.eye(2), {"kind": "tree"}),
        ("metric='dot' is not known", np.eye(2), {"metric": "dot"}),
    ],
)
def test_a_bad_build_is_refused(words: str, vectors: NDArray[np.float64], options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=words):
        ItemIndex.build(vectors, fingerprint="f", **options)


@needs_faiss
def test_auto_is_flat_where_faiss_is_installed_and_says_why() -> None:
    index = ItemIndex.build(np.eye(3), kind="auto", fingerprint="f")
    assert index.kind == "flat"
    assert "FAISS" in index.reason


def test_auto_is_exact_where_faiss_is_missing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = ItemIndex.build(np.eye(3), kind="auto", fingerprint="f")
    assert index.kind == "exact"
    assert "recsys-engine[faiss]" in index.reason
    assert index.search(np.eye(3), 1).ids.tolist() == [[0], [1], [2]]


def test_importing_the_index_does_not_import_faiss() -> None:
    code = "import sys, recsys.retrieval.item_index; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("metric", ["inner_product", "l2", "cosine"])
def test_recall_is_the_share_of_the_best_items_that_a_search_finds(metric: str) -> None:
    rng = np.random.default_rng(3)
    vectors, queries = rng.normal(size=(2000, 8)), rng.normal(size=(20, 8))
    index = ItemIndex.build(
        vectors, kind="ivf", metric=metric, fingerprint="", options={"nlist": 40, "nprobe": 4}
    )
    exact = ItemIndex.build(vectors, kind="exact", metric=metric, fingerprint="")
    found, truth = index.search(queries, 5).ids, exact.search(queries, 5).ids
    share = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    assert 0.2 < share < 1
    assert index.measure_recall(queries, 5) == pytest.approx(share)
    assert exact.measure_recall(queries, 5) == 1.0
    for wrong in ((queries[:0], 5), (queries, 0), (queries, 2001)):
        with pytest.raises(ArgumentError, match="give queries and a k of 1 to 2,000"):
            index.measure_recall(*wrong)
