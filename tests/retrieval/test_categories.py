import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.errors import ArgumentError
from recsys.retrieval.categories import Categories
from recsys.retrieval.item_index import ItemIndex

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="FAISS is not installed")
KINDS = ("exact", *(pytest.param(kind, marks=needs_faiss) for kind in ("flat", "ivf", "ivfpq", "hnsw")))


def listed(n: int, rng: np.random.Generator) -> list[list[int]]:
    return [rng.choice(6, rng.integers(0, 3), replace=False).tolist() for _ in range(n)]


@pytest.mark.parametrize("kind", KINDS)
def test_only_items_of_the_wanted_categories_are_answered_as_many_as_there_are(kind: str) -> None:
    rng = np.random.default_rng(0)
    of_item = listed(200, rng)
    vectors, queries = rng.standard_normal((200, 5)), rng.standard_normal((4, 5))
    index = ItemIndex.build(vectors, kind=kind, fingerprint="f", categories=Categories.of_items(of_item, 7))
    truth = queries @ vectors.T
    for wanted in (0, [2], [1, 4], 6, []):
        numbers = {wanted} if isinstance(wanted, int) else set(wanted)
        pool = {i for i, own in enumerate(of_item) if numbers & set(own)}
        allow, seen = list(range(0, 200, 2)), (np.arange(20), np.arange(5) * 5)
        found = index.search(queries, 200, category=wanted, allow=allow, exclude=seen)
        for row in range(4):
            left = (pool & set(allow)) - set(range(row * 5, row * 5 + 5))
            best = sorted(left, key=lambda i: -truth[row, i])
            assert found.ids[row][found.ids[row] >= 0].tolist() == best


def test_categories_travel_with_the_index(tmp_path: Path) -> None:
    categories = Categories.of_items([[1], [0, 1], []], 3)
    index = ItemIndex.build(np.eye(3), kind="exact", fingerprint="f", categories=categories)
    index.save(tmp_path / "index")
    loaded = ItemIndex.load(tmp_path / "index")
    assert loaded.search(np.eye(3)[:1], 3, category=1).ids.tolist() == [[0, 1, -1]]
    assert loaded.categories is not None
    assert [loaded.categories.items(c).tolist() for c in range(3)] == [[1], [0, 1], []]
    assert len(loaded.categories) == 3


@pytest.mark.parametrize(
    ("wanted", "words"),
    [(3, "lie in [0, 3)"), (-1, "lie in [0, 3)"), ("a", "whole numbers"), ([[1]], "whole")],
)
def test_a_category_that_is_not_there_is_refused(wanted: Any, words: str) -> None:
    index = ItemIndex.build(
        np.eye(3), kind="exact", fingerprint="f", categories=Categories.of_items([[1], [0], []], 3)
    )
    with pytest.raises(ArgumentError) as caught:
        index.search(np.eye(3), 1, category=wanted)
    assert words in str(caught.value)


def test_an_index_without_categories_and_categories_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ArgumentError, match="built without categories"):
        ItemIndex.build(np.eye(3), kind="exact", fingerprint="f").search(np.eye(3), 1, category=0)
    with pytest.raises(ArgumentError, match="outside"):
        Categories.of_items([[3]], 3)
    with pytest.raises(ArgumentError, match="must rise"):
        Categories(np.array([1]), np.array([0, 2]), 3)
    with pytest.raises(ArgumentError, match="outside"):
        Categories(np.array([3]), np.array([0, 1]), 3)
    with pytest.raises(ArgumentError, match="for 2 items"):
        ItemIndex.build(
            np.eye(3), kind="exact", fingerprint="f", categories=Categories.of_items([[0]] * 2, 1)
        )
