"""Items are scored by a query's nearest states, and targets ranked under it, as the definition does it."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.kernels import local_aggregation
from recsys.kernels.local_aggregation import cpu, reference

Ints = NDArray[np.int64]


class Poisoned:
    """numpy, but memory that a kernel forgets to write is NaN, or a number that no index can be."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any) -> Any:
        made = np.empty(shape, dtype=dtype)
        made.fill(np.nan if made.dtype.kind == "f" else -999_999)
        return made


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "np", Poisoned())


def nearest(
    queries: NDArray[np.float32], states: NDArray[np.float32], m: int
) -> tuple[Ints, NDArray[np.float32]]:
    """The m nearest states of each query and minus their squared distances."""
    squares = np.square(queries[:, None].astype(np.float64) - states[None]).sum(axis=2)
    ids = np.argsort(squares, axis=1, kind="stable")[:, :m]
    return ids, -np.take_along_axis(squares, ids, axis=1).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_items_are_scored_as_the_definition_does_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    b, states_count, d, n_items = (
        int(rng.integers(low, high)) for low, high in ((0, 7), (1, 90), (1, 35), (1, 20))
    )
    m = 1 if seed % 5 == 0 else int(rng.integers(1, states_count + 1))
    states = rng.standard_normal((states_count, d)).astype(np.float32)
    if seed % 2:  # whole numbers make states twice, equal distances and states equal to the query
        states = rng.integers(-1, 2, (states_count, d)).astype(np.float32)
    queries = states[rng.integers(0, states_count, b)] + (seed % 3 == 0) * np.float32(0.25)
    owners = rng.integers(0, n_items, states_count)
    if seed % 7 == 0:
        owners[:] = n_items - 1
    ids, near = nearest(queries, states, m)
    short = np.arange(m) >= rng.integers(0, m + 1, b)[:, None]
    if seed % 4 == 0:
        ids, near = np.where(short, -1, ids), np.where(short, -np.inf, near).astype(np.float32)
    scores, items = local_aggregation.local_scores(queries, states, owners, ids, near)
    want, distinct = reference.local_scores(queries, states, owners, ids, near)
    np.testing.assert_array_equal(items, distinct)
    assert scores.dtype == np.float32
    # Where an item's vector meets the query, what is left of its score is rounding of the vector.
    np.testing.assert_allclose(scores, want, rtol=1e-6, atol=1e-12)


def test_the_mean_is_weighted_by_nearness() -> None:
    states = np.array([[1, 0], [0, 3], [-2, 0], [5, 5]], dtype=np.float32)
    near = np.array([[-1, -4, -9]], dtype=np.float32)
    query, owners = np.zeros((1, 2), dtype=np.float32), np.array([4, 2, 4, 2])
    scores, items = local_aggregation.local_scores(query, states, owners, np.array([[0, 2, 1]]), near)
    assert items.tolist() == [[2, 4, -1]]
    # Item 4: (1 [1, 0] + 1/2 [-2, 0]) / (3/2) = 0.
    assert scores.tolist() == [[-9, 0, -np.inf]]


def cases(rng: np.random.Generator, b: int, m: int, v: int) -> tuple[Any, ...]:
    """Arguments of `local_ranks`; few whole scores, so that many are equal."""
    items = np.stack([rng.permutation(v)[:m] for _ in range(b)]) if b else np.empty((0, m), dtype=np.int64)
    items = np.where(rng.random((b, m)) < rng.choice([0.0, 0.4]), -1, items)
    scores = np.where(items < 0, -np.inf, -rng.integers(0, 5, (b, m))).astype(np.float32)
    behind = rng.integers(-3, 4, (b, v)).astype(np.float64)
    rows = rng.integers(0, 4, b)
    lengths = rng.integers(0, 25, rows.sum())
    log = rng.integers(0, v, lengths.sum() + 5).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)[: len(lengths)]
    targets = rng.integers(0, v, len(lengths))
    return (
        scores, items, behind, log, starts, starts + lengths, targets, np.cumsum([0, *rows]).astype(np.int64)
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_targets_are_ranked_as_the_definition_does_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    v = int(rng.integers(1, 60))
    given = cases(rng, int(rng.integers(0, 8)), int(rng.integers(1, v + 1)), v)
    got, want = local_aggregation.local_ranks(*given), reference.local_ranks(*given)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.usefixtures("_threads")
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.kernels.shared.threads.STEPS_PER_THREAD", 1)
    rng = np.random.default_rng(3)
    states = rng.standard_normal((300, 24)).astype(np.float32)
    queries = rng.standard_normal((50, 24)).astype(np.float32)
    owners, given = rng.integers(0, 40, 300), cases(rng, 50, 30, 60)
    ids, near = nearest(queries, states, 120)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(
            (
                *local_aggregation.local_scores(queries, states, owners, ids, near),
                *local_aggregation.local_ranks(*given),
            )
        )
    for one, three in zip(*found, strict=True):
        assert one.tobytes() == three.tobytes()


def test_arrays_that_do_not_fit_are_refused() -> None:
    queries, states = np.ones((2, 3), dtype=np.float32), np.ones((5, 3), dtype=np.float32)
    owners, ids, near = np.arange(5), np.zeros((2, 4), dtype=np.int64), -np.ones((2, 4), dtype=np.float32)
    for wrong, message in (
        ((queries[:, :2], states, owners, ids, near), "one width"),
        ((queries, states, owners[:4], ids, near), "an item per state"),
        ((queries, states, owners, ids[:1], near[:1]), "a row per query"),
        ((queries, states, owners, ids, near[:, :3]), "a row per query"),
        ((queries, states, owners, ids + 5, near), r"in \[0, 5\)"),
        ((queries, states, owners, ids - 2, near), "-1 for none"),
    ):
        with pytest.raises(ArgumentError, match=message):
            local_aggregation.local_scores(*wrong)
