"""The one place that imports FAISS: after torch, once checked that a single distribution is installed.

Every FAISS wheel owns the folder `faiss/`: a second one overwrites the first in part, and uninstalling
either leaves an empty package that still imports.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

# torch first: the two then share one OpenMP setting; the other way round they run two pools.
import torch  # noqa: F401

from recsys.errors import MissingDependencyError
from recsys.retrieval.filters import Ints

_DISTRIBUTIONS = (
    "faiss",
    "faiss-cpu",
    "faiss-gpu",
    "faiss-gpu-cuvs",
    "faiss-gpu-cu11",
    "faiss-gpu-cu12",
    "faiss-gpu-cu12-cuvs",
    "faiss-gpu-cu13-cuvs",
    "faiss-cuda",
)
_REMEDY = "pip install 'recsys-engine[faiss]', or use kind='exact'"

# From 1.14.2 on FAISS uses BLAS only from 128,000 query components (queries * d); at d = 64 that is 2,000
# queries, while BLAS is faster from about 8 (4.6 to 6.9 times at 32 to 256 queries, one thread).
_SLOW_BLAS_THRESHOLD = 128_000
_QUERIES_FOR_BLAS = 8

# Process in which FAISS first searched with several threads: OpenMP's pool does not survive a fork.
_pool_owner: int | None = None


def load_faiss() -> Any:
    """Import FAISS.

    Raises:
        MissingDependencyError: it is not installed, is broken, or several distributions of it are installed.
    """
    found = installed_distributions()
    if len(found) > 1:
        names = " ".join(name for name, _ in found)
        listed = ", ".join(f"{name} {number}" for name, number in found)
        raise MissingDependencyError(
            f"several FAISS distributions are installed and overwrite each other ({listed}): "
            f"pip uninstall {names}, then {_REMEDY}"
        )
    try:
        import faiss
    except (ImportError, RuntimeError, OSError) as error:
        why = "FAISS is not installed" if isinstance(error, ModuleNotFoundError) else "FAISS cannot be loaded"
        raise MissingDependencyError(f"{why}: {_REMEDY}") from error
    if not hasattr(faiss, "IndexFlatIP"):
        raise MissingDependencyError(f"FAISS is installed in part (a distribution was removed): {_REMEDY}")
    return faiss


def installed_distributions() -> list[tuple[str, str]]:
    """List the installed FAISS distributions as (name, version)."""
    found = []
    for name in _DISTRIBUTIONS:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def lower_blas_threshold(faiss: Any, width: int) -> None:
    """Let FAISS use BLAS from 8 queries of this width on, unless somebody has set another threshold.

    The setting belongs to the process; it changes the speed of searches, not what they find.
    """
    if getattr(faiss.cvar, "distance_compute_blas_threshold", 0) == _SLOW_BLAS_THRESHOLD:
        faiss.cvar.distance_compute_blas_threshold = _QUERIES_FOR_BLAS * width


@contextmanager
def searching(faiss: Any, threads: int) -> Iterator[None]:
    """Hold FAISS's thread number for a search by the calling thread.

    FAISS's setting holds for the thread that made it: a number set at start does not reach the threads of a
    server's pool. So it is set here, each time. A process that was forked after its parent had searched with
    several threads searches with one: with several it would wait for threads that it does not have.

    Args:
        faiss: the library.
        threads: of the search; 0 leaves the setting.
    """
    global _pool_owner
    before = faiss.omp_get_max_threads()
    wanted = threads or before
    if wanted > 1:
        if _pool_owner in (None, os.getpid()):
            _pool_owner = os.getpid()
        else:
            wanted = 1
    if wanted != before:
        faiss.omp_set_num_threads(wanted)
    try:
        yield
    finally:
        if wanted != before:
            faiss.omp_set_num_threads(before)


def bitmap_selector(faiss: Any, allowed: Ints, n_items: int) -> Any:
    """A FAISS selector of some of V items: one bit per item."""
    bits = np.zeros(n_items, dtype=np.bool_)
    bits[allowed] = True
    packed = np.packbits(bits, bitorder="little")
    return faiss.IDSelectorBitmap(packed)
