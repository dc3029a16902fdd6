"""Proposals are checked, scored and ordered as the definition does it; short tables are scanned exactly."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsys.kernels import rescoring
from recsys.kernels.rescoring import reference
from recsys.kernels.rescoring.cpu_best_of_table import best_of_table
from recsys.kernels.shared.vector import LANES

NONE = np.empty(0, dtype=np.int64)
NO_FLOATS = np.empty((0, 0), dtype=np.float32)


def outputs(b: int, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Room for answers, poisoned."""
    scores, ids = np.full((b, k), np.nan, dtype=np.float32), np.full((b, k), -999_999)
    return scores, ids, np.ones(b, dtype=np.bool_)


def jagged(rng: np.random.Generator, b: int, v: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lists = [np.flatnonzero(rng.random(v) < rng.choice([0.0, 0.3])) for _ in range(b)]
    return np.concatenate([NONE, *lists]), np.cumsum([0, *map(len, lists)]).astype(np.int64)


def permitted(b: int, v: int, excluded: Any, offsets: Any, candidates: Any) -> torch.Tensor:
    mask = torch.zeros(b, v, dtype=torch.bool)
    mask[:, torch.from_numpy(candidates)] = True
    for row in range(b):
        mask[row, torch.from_numpy(excluded[offsets[row] : offsets[row + 1]])] = False
    return mask


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_proposals_are_ordered_as_the_definition_does_it(seed: int, squared: bool) -> None:
    rng = np.random.default_rng(seed)
    b, v, d, m, k = (
        int(rng.integers(low, high)) for low, high in ((0, 6), (1, 60), (1, 35), (1, 50), (1, 40))
    )
    # Whole numbers make ties, and sums without rounding.
    queries, vectors = (rng.integers(-2, 3, (n, d)).astype(np.float32) for n in (b, v))
    ids = rng.integers(-1, v, (b, m))
    excluded, offsets = jagged(rng, b, v)
    candidates = np.flatnonzero(rng.random(v) < 0.7)
    if len(candidates) == 0 or seed % 3 == 0:
        candidates = np.arange(v)
    out = outputs(b, k)
    refused, doubts = rescoring.rescore(
        queries, vectors, squared, ids, NO_FLOATS, 1.0, np.empty(0), False, NONE, candidates,
        excluded, offsets, np.arange(b), k, m, 1e3, *out,
    )  # fmt: skip
    mask = permitted(b, v, excluded, offsets, candidates)
    want = reference.rescore(
        torch.from_numpy(queries), torch.from_numpy(vectors), torch.from_numpy(ids), mask, k, squared=squared
    )
    np.testing.assert_array_equal(out[0], want[0].numpy())
    np.testing.assert_array_equal(out[1], want[1].numpy())
    assert refused == int(((ids >= 0) & ~np.isin(ids, candidates)).sum())
    assert doubts == 0
    assert not out[2].any()


@pytest.mark.parametrize("width", [1, 7, 8, 16, 23, 64, 65])
@pytest.mark.parametrize("squared", [False, True])
def test_scores_are_those_of_double_precision_and_alike_in_any_batch(width: int, squared: bool) -> None:
    rng = np.random.default_rng(width)
    queries, vectors = (rng.standard_normal((n, width)).astype(np.float32) for n in (5, 40))
    ids = np.stack([rng.permutation(40) for _ in range(5)])
    out = outputs(5, 40)
    arguments = (NO_FLOATS, 1.0, np.empty(0), False, NONE, NONE, NONE, NONE)
    rescoring.rescore(queries, vectors, squared, ids, *arguments, np.arange(5), 40, 40, 100.0, *out)
    wide = vectors.astype(np.float64)
    for row in range(5):
        query = queries[row].astype(np.float64)
        exact = -np.square(wide - query).sum(1) if squared else wide @ query
        np.testing.assert_allclose(out[0][row], exact[out[1][row]], rtol=1e-6, atol=1e-12)
        single = outputs(1, 40)
        rescoring.rescore(
            queries[row : row + 1], vectors, squared, ids[row : row + 1, ::-1].copy(), *arguments,
            np.arange(1), 40, 40, 100.0, *single,
        )  # fmt: skip
        np.testing.assert_array_equal(single[0][0], out[0][row])
        scores = np.full(40, np.nan, dtype=np.float32)
        rescoring.score_items(queries[row], vectors.reshape(-1), width, out[1][row], squared, scores)
        np.testing.assert_array_equal(scores, out[0][row])


@pytest.mark.parametrize("seed", range(40))
def test_a_gathered_table_is_scanned_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    b, v = int(rng.choice([1, 2, 4, 5, 17, 40])), int(rng.integers(1, 400))
    d, k = int(rng.choice([1, 3, 16, 24, 64])), int(rng.choice([1, 5, 30, 500]))
    vectors = rng.integers(-2, 3, (v, d)).astype(np.float32)
    queries = rng.integers(-2, 3, (b, d)).astype(np.float32)
    labels = np.flatnonzero(rng.random(v) < rng.choice([0.1, 0.6, 1.0]))
    labels = labels if len(labels) else np.arange(v)
    excluded, offsets = jagged(rng, b, v)
    most_excluded = int(np.diff(offsets).max(initial=0))
    longest = float(np.linalg.norm(vectors, axis=1).max())
    out = outputs(b, k)
    refused, doubts = rescoring.rescore_gathered(
        queries,
        vectors[labels],
        labels,
        excluded,
        offsets,
        np.arange(b),
        k,
        most_excluded,
        longest,
        LANES,
        *out,
    )
    everyone = torch.arange(v).expand(b, v)
    mask = permitted(b, v, excluded, offsets, labels)
    want = reference.rescore(
        torch.from_numpy(queries), torch.from_numpy(vectors), everyone, mask, k, squared=False
    )
    assert refused == 0
    assert doubts == out[2].sum()
    sure = ~out[2]  # a tie at the edge of what was scored leaves a query in doubt
    np.testing.assert_array_equal(out[0][sure], want[0].numpy()[sure])
    np.testing.assert_array_equal(out[1][sure], want[1].numpy()[sure])


def test_an_item_beyond_the_proposals_that_could_belong_leaves_a_doubt() -> None:
    vectors, query = np.ones((40, 4), dtype=np.float32), np.ones((1, 4), dtype=np.float32)
    ids, found = np.arange(12)[None], np.full((1, 12), 4, dtype=np.float32)

    def doubts(found: Any, complete: bool, wanted: int = 12, sign: float = 1.0, shift: Any = ()) -> int:
        out = outputs(1, 3)
        _, count = rescoring.rescore(
            query, vectors, False, ids, found, sign, np.array(shift, dtype=np.float64), complete, NONE, NONE,
            NONE, NONE, np.arange(1), 3, wanted, 2.0, *out,
        )  # fmt: skip
        assert count == int(out[2][0])
        return int(count)

    assert doubts(found, complete=False) == 1
    assert doubts(found, complete=True) == 0
    assert doubts(found, complete=True, wanted=5) == 1
    lower = np.where(np.arange(12) < 11, 4, 3)[None].astype(np.float32)
    assert doubts(lower, complete=False) == 0
    assert doubts(-lower, complete=False, sign=-1.0) == 0
    assert doubts(lower + 9, complete=False) == 1
    assert doubts(lower + 9, complete=False, shift=[9.0]) == 0


def test_scores_beyond_float32_are_told() -> None:
    query, vectors = np.full((1, 2), 1e20, dtype=np.float32), np.full((3, 2), 1e20, dtype=np.float32)
    out = outputs(1, 2)
    arguments = (NONE, NONE, np.arange(1), 2)
    assert rescoring.rescore_gathered(query, vectors, np.arange(3), *arguments, 0, 1e20, LANES, *out)[0] == -1
    filters = (NO_FLOATS, 1.0, np.empty(0), False, NONE, NONE)
    ids = np.arange(3)[None]
    assert rescoring.rescore(query, vectors, False, ids, *filters, *arguments, 3, 1e20, *out)[0] == -1
    assert rescoring.overflows(query.reshape(-1), 2, 1e20, True)
    assert not rescoring.overflows(query.reshape(-1), 2, 1e10, False)


@pytest.mark.parametrize("items", [1, 15, 16, 17, 33, 500])
@pytest.mark.parametrize("width", [1, 4, 16, 23, 64])
def test_the_best_of_a_short_table_are_those_of_a_sort(items: int, width: int) -> None:
    rng = np.random.default_rng(items + width)
    table = rng.integers(-2, 3, (items, width)).astype(np.float32)
    query = rng.integers(-2, 3, width + 3).astype(np.float32)
    for count in {1, (items + 1) // 2, items}:
        found, places = np.full(count + 2, np.nan, dtype=np.float32), np.full(count + 2, -9)
        # What lies behind the table is not a number.
        room = np.full(items * width + 64, np.nan, dtype=np.float32)
        room[: items * width] = table.reshape(-1)
        best_of_table(query, 3, room[: items * width], width, LANES, count, found, places, 2)
        scores = table @ query[3:]
        order = np.argsort(-scores, kind="stable")[:count]
        np.testing.assert_array_equal(places[2:], order)
        np.testing.assert_array_equal(found[2:], scores[order])


def test_lists_of_ids_are_looked_at_as_numpy_does() -> None:
    rng = np.random.default_rng(0)
    for length in (0, 1, 2, 5, 40):
        ids = np.sort(rng.choice(100, length, replace=False))
        assert rescoring.is_sorted_within(ids, 100)
        assert rescoring.is_sorted_within(ids, 50) == (length == 0 or ids[-1] < 50)
        others = np.sort(rng.choice(100, 30, replace=False))
        np.testing.assert_array_equal(rescoring.exclude_ids(ids, others), np.setdiff1d(ids, others))
        assert rescoring.same_lists(ids, ids.copy())
        assert rescoring.digest(ids) == rescoring.digest(ids.copy())
        for place in range(length):
            changed = ids.copy()
            changed[place] += 1
            assert not rescoring.same_lists(ids, changed)
            assert rescoring.digest(ids) != rescoring.digest(changed)
    for wrong in ([3, 3], [4, 3], [-1, 3]):
        assert not rescoring.is_sorted_within(np.array(wrong), 100)
    assert not rescoring.same_lists(np.arange(3), np.arange(4))
    assert rescoring.digest(np.array([1, 2])) != rescoring.digest(np.array([2, 1]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(value: float) -> None:
    values = np.full(35, 3e38, dtype=np.float32)
    assert rescoring.all_finite(values)
    values[33] = value
    assert not rescoring.all_finite(values)
