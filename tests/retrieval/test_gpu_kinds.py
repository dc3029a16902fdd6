"""GPU kinds against a stand-in that behaves as FAISS's GPU classes do, their traps included."""

import importlib
import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from recsys.errors import MissingDependencyError, RetrievalError
from recsys.retrieval import gpu_library, planner
from recsys.retrieval.item_index import ItemIndex

if importlib.util.find_spec("faiss") is None:
    pytest.skip("FAISS is not installed", allow_module_level=True)

faiss: Any = importlib.import_module("faiss")


class GpuIndexCopy:
    """A copy on a GPU: drops selectors, returns at most 2,048 items, falls to pieces under two threads."""

    def __init__(self, index: Any, honours: bool) -> None:
        self._index, self._honours = index, honours
        self.ntotal = index.ntotal
        self.deepest = 0
        self._busy = threading.Lock()

    def search(self, queries: Any, k: int, *, params: Any = None) -> Any:
        assert self._busy.acquire(blocking=False), "two threads in one GPU index"
        try:
            assert k <= 2048
            self.deepest = max(self.deepest, k)
            if params is None:
                return self._index.search(queries, k)
            if not self._honours:
                params.sel = None
            return self._index.search(queries, k, params=params)
        finally:
            self._busy.release()


class Library:
    """faiss-gpu with one GPU; with `cuvs`, faiss-gpu-cuvs."""

    StandardGpuResources = object

    def __init__(self, *, gpus: int = 1, cuvs: bool = False) -> None:
        self._gpus, self._cuvs = gpus, cuvs
        self.copies: list[GpuIndexCopy] = []
        if cuvs:
            self.GpuIndexCagra = self._cagra
            self.GpuIndexCagraConfig = object
            self.SearchParametersCagra = CagraParameters

    def __getattr__(self, name: str) -> Any:
        if name.startswith("GpuIndex"):
            raise AttributeError(name)
        return getattr(faiss, name)

    def get_num_gpus(self) -> int:
        return self._gpus

    def index_cpu_to_gpu(self, resources: Any, device: int, index: Any) -> Any:
        self.copies.append(GpuIndexCopy(index, self._cuvs))
        return self.copies[-1]

    def _cagra(self, resources: Any, width: int, measure: int, config: Any) -> Any:
        return CagraIndex(width, measure)


class CagraParameters:
    itopk_size = 64
    sel: Any = None


class CagraIndex:
    def __init__(self, width: int, measure: int) -> None:
        self._graph = faiss.IndexHNSWFlat(width, 16, measure)

    def train(self, vectors: Any) -> None:
        self._graph.add(vectors)

    def search(self, queries: Any, k: int, *, params: Any) -> Any:
        assert params.itopk_size >= k
        wanted = faiss.SearchParametersHNSW(efSearch=params.itopk_size, sel=params.sel)
        return self._graph.search(queries, k, params=wanted)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    return use(monkeypatch, Library())


def use(monkeypatch: pytest.MonkeyPatch, library: Library) -> Library:
    monkeypatch.setattr(gpu_library, "load_faiss", lambda: library)
    return library


def vectors(n: int = 4000) -> Any:
    return np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)


def compare(kind: str, **filters: Any) -> ItemIndex:
    """Search both the GPU kind and the exact one; answers under filters must be permitted, and the same."""
    index = ItemIndex.build(vectors(), kind=kind, fingerprint="f", options={"nprobe": 4000})
    truth = ItemIndex.build(vectors(), kind="flat", fingerprint="f")
    queries = vectors(20)
    found, best = index.search(queries, 10, **filters), truth.search(queries, 10, **filters)
    if index.exact:
        np.testing.assert_array_equal(found.ids, best.ids)
    else:
        assert (found.ids == best.ids).mean() > 0.9
    return index


@pytest.mark.parametrize("kind", ["gpu-flat", "gpu-ivf"])
def test_classic_gpu_indexes_never_meet_a_selector(
    kind: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "GATHER_ITEMS", 100)
    monkeypatch.setattr(planner, "FETCH_DEPTH", 100)
    even = np.arange(0, 4000, 2)
    for filters in ({}, {"allow": even}, {"allow": np.arange(50)}, {"deny": np.arange(2000)}):
        index = compare(kind, **filters)
        assert "selector" not in index.counters
    seen = np.tile(np.arange(2500), 20), np.arange(21) * 2500
    compare(kind, exclude=seen)
    assert max(copy.deepest for copy in library.copies) <= 2048


def test_deep_fetches_leave_the_gpu_for_the_cpu(library: Library) -> None:
    index = ItemIndex.build(vectors(), kind="gpu-flat", fingerprint="f")
    found = index.search(vectors(3), 3000)
    assert np.all(found.ids >= 0)
    assert library.copies[0].deepest == 0


@pytest.mark.parametrize("kind", ["gpu-flat", "gpu-ivf"])
def test_threads_take_turns_on_a_gpu_index(kind: str, library: Library) -> None:
    index = ItemIndex.build(vectors(), kind=kind, fingerprint="f")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: index.search(vectors(20), 10).ids, range(40)))
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_a_selector_at_the_door_of_a_classic_index_is_refused(library: Library) -> None:
    index = ItemIndex.build(vectors(), kind="gpu-ivf", fingerprint="f")
    selector = faiss.IDSelectorBatch(np.arange(10))
    with pytest.raises(RetrievalError, match="ignore selectors silently"):
        index.backend._proposer.search.find(vectors(1), 3, selector)  # type: ignore[attr-defined]
    from recsys.retrieval.flat import search_with

    with pytest.raises(RetrievalError, match="ignores selectors"):
        search_with(faiss, library.copies[0], vectors(1), 3, selector)


def test_cuvs_honours_selectors_and_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library(cuvs=True))
    monkeypatch.setattr(planner, "GATHER_ITEMS", 100)
    monkeypatch.setattr(planner, "FETCH_DEPTH", 100)
    allow = np.arange(0, 4000 * 4 // 5)
    index = compare("gpu-ivf", allow=allow)
    assert index.counters["selector"] == 20
    assert index.counters.get("refused", 0) == 0


def test_cagra_answers_under_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library(cuvs=True))
    monkeypatch.setattr(planner, "GATHER_ITEMS", 100)
    monkeypatch.setattr(planner, "FETCH_DEPTH", 100)
    compare("gpu-cagra")
    assert compare("gpu-cagra", allow=np.arange(3200)).counters["selector"] == 20
    assert compare("gpu-cagra", allow=np.arange(1500)).counters == {"scan": 20}


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class CpuBuild:
        IndexFlatIP = object

    monkeypatch.setattr(gpu_library, "load_faiss", lambda: CpuBuild)
    with pytest.raises(MissingDependencyError, match=r"built for CPUs.*recsys-engine\[gpu\]"):
        ItemIndex.build(vectors(20), kind="gpu-flat", fingerprint="f")
    use(monkeypatch, Library(gpus=0))
    with pytest.raises(MissingDependencyError, match="sees no GPU"):
        ItemIndex.build(vectors(20), kind="gpu-ivf", fingerprint="f")
    use(monkeypatch, Library())
    with pytest.raises(MissingDependencyError, match="faiss-cuvs"):
        ItemIndex.build(vectors(20), kind="gpu-cagra", fingerprint="f")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["gpu-flat", "gpu-ivf"])
def test_a_real_gpu_answers_as_the_stand_in(kind: str) -> None:
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
        pytest.skip("FAISS sees no GPU")
    compare(kind)
    compare(kind, allow=np.arange(0, 4000, 2))
    seen = np.tile(np.arange(2500), 20), np.arange(21) * 2500
    compare(kind, exclude=seen)
