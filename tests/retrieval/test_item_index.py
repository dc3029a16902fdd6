import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.retrieval.item_index import ItemIndex

KINDS = ("exact", "flat")
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
    if metric == "l2":
        scores = -np.square(q[:, None] - v[None]).sum(axis=2)
    else:
        scores = q @ v.T
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
@settings(max_examples=150, deadline=None)
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
