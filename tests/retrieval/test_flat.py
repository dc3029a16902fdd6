import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

if importlib.util.find_spec("faiss") is None:
    pytest.skip("FAISS is not installed", allow_module_level=True)

from recsys.retrieval import faiss_library, flat, metric
from recsys.retrieval.filters import merge_filters
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import Engine, plan


def test_an_excluded_item_is_dropped_even_if_faiss_puts_it_first() -> None:
    class Untrustworthy:
        ntotal = 4

        def search(self, queries: Any, fetched: int) -> tuple[Any, Any]:
            b = len(queries)
            return np.tile(np.arange(4, 0, -1, dtype=np.float32), (b, 1)), np.tile(np.arange(4), (b, 1))

    backend = flat.build(torch.eye(4), "inner_product", IndexOptions())
    stored, backend._index = backend._index, Untrustworthy()  # the index owns the vectors' memory
    filters = merge_filters(4, 1, (np.array([0, 2]), np.array([0, 2])), None, [1])
    _, ids = backend.search(torch.tensor([[4.0, 3, 2, 1]]), 3, filters)
    assert ids.tolist() == [[3, -1, -1]]
    assert stored.ntotal == 4


def test_ordinary_vectors_need_no_second_scan_of_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("scanned again")

    monkeypatch.setattr(metric, "_scan", forbidden)
    generator = torch.Generator().manual_seed(0)
    backend = flat.build(torch.randn(5000, 32, generator=generator), "inner_product", IndexOptions())
    queries = torch.randn(64, 32, generator=generator)
    _, found = backend.search(queries, 20, merge_filters(5000, 64))
    # Excluding all but the last of the best must be met by fetching deeper, not by scanning again.
    exclude = found[:, :19].reshape(-1), torch.arange(65) * 19
    _, ids = backend.search(queries, 20, merge_filters(5000, 64, exclude))
    assert ids[:, 0].tolist() == found[:, 19].tolist()
    assert int(ids.min()) >= 0


def test_ties_that_were_fetched_but_not_proposed_are_not_forgotten() -> None:
    class LastOfTiesFirst:
        """An index that is right about scores and orders equal ones by id, higher first."""

        ntotal = 400

        def search(self, queries: Any, fetched: int) -> tuple[Any, Any]:
            order = np.lexsort((-np.arange(400), -vectors[:, 0]))[:fetched]
            return np.tile(vectors[order, 0], (len(queries), 1)), np.tile(order, (len(queries), 1))

    vectors = np.zeros((400, 1), dtype=np.float32)
    vectors[:40] = 1
    backend = flat.build(torch.from_numpy(vectors), "inner_product", IndexOptions())
    stored, backend._index = backend._index, LastOfTiesFirst()  # the index owns the vectors' memory
    # Both rows are fetched as deep as the second one's exclusions ask for.
    exclude = np.concatenate([np.arange(100, 233), np.arange(100, 300)]), np.array([0, 133, 333])
    _, ids = backend.search(torch.ones(2, 1), 3, merge_filters(400, 2, exclude))
    assert ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert stored.ntotal == 400


def test_rows_are_fetched_in_groups_of_similar_exclusions() -> None:
    lengths = [0, 1, 3, 2, 900]
    ids = np.concatenate([np.arange(length) for length in lengths])
    filters = merge_filters(1000, 5, (ids, np.cumsum([0, *lengths])))
    engine = Engine(exact=True, selectors=True, selector_share=0.0, deepest=1000)
    groups = [(step.rows.tolist(), step.excluded) for step in plan(filters, 10, engine)]
    assert groups == [([0], 0), ([1], 1), ([2, 3], 3), ([4], 900)]


def test_the_blas_threshold_is_lowered_from_the_default_only() -> None:
    class Library:
        class cvar:
            distance_compute_blas_threshold = 128_000

    faiss_library.lower_blas_threshold(Library, 64)
    assert Library.cvar.distance_compute_blas_threshold == 512
    faiss_library.lower_blas_threshold(Library, 128)
    assert Library.cvar.distance_compute_blas_threshold == 512
    Library.cvar.distance_compute_blas_threshold = 20
    faiss_library.lower_blas_threshold(Library, 64)
    assert Library.cvar.distance_compute_blas_threshold == 20
