import sys
from importlib.metadata import PackageNotFoundError
from types import ModuleType

import pytest

from recsys.errors import MissingDependencyError
from recsys.retrieval import faiss_library


def test_a_missing_faiss_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"not installed: pip install 'recsys-engine\[faiss\]'"):
        faiss_library.load_faiss()


def test_two_faiss_distributions_are_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"faiss-cpu": "1.15.1", "faiss-gpu": "1.14.3"}

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(faiss_library, "version", version)
    with pytest.raises(MissingDependencyError, match="pip uninstall faiss-cpu faiss-gpu") as caught:
        faiss_library.load_faiss()
    assert "faiss-cpu 1.15.1, faiss-gpu 1.14.3" in str(caught.value)


def test_what_is_left_of_an_uninstalled_faiss_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_library, "installed_distributions", list)
    monkeypatch.setitem(sys.modules, "faiss", ModuleType("faiss"))
    with pytest.raises(MissingDependencyError, match="installed in part"):
        faiss_library.load_faiss()


class Counting:
    """A library whose thread number belongs to it alone."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def omp_get_max_threads(self) -> int:
        return self.threads

    def omp_set_num_threads(self, threads: int) -> None:
        self.threads = threads


def test_a_search_sets_its_threads_and_puts_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_library, "_pool_owner", None)
    library = Counting(4)
    with faiss_library.searching(library, 2):
        assert library.threads == 2
    assert library.threads == 4
    with faiss_library.searching(library, 0):
        assert library.threads == 4


def test_a_forked_process_searches_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_library, "_pool_owner", None)
    with faiss_library.searching(Counting(1), 0):
        assert faiss_library._pool_owner is None
    with faiss_library.searching(Counting(4), 0):
        pass
    monkeypatch.setattr("os.getpid", lambda: -1)
    library = Counting(4)
    for asked in (0, 1, 3):
        with faiss_library.searching(library, asked):
            assert library.threads == 1
        assert library.threads == 4
