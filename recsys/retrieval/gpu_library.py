"""FAISS on a GPU: is there one, its scratch memory, and what its classic indexes cannot do.

Classic GPU indexes (the faiss-gpu distribution) accept a selector and ignore it: no filter, no error. Their
backends here therefore never get one (`Engine.selectors` is False), and refuse one all the same. Only
faiss-gpu-cuvs honours selectors. No GPU index may be used by two threads at once.
"""

from typing import Any

from recsys.errors import MissingDependencyError, RetrievalError
from recsys.retrieval.faiss_library import load_faiss

CLASSIC_DEEPEST = 2048
"""Most items that a classic GPU index returns for a query (GPU_MAX_SELECTION_K)."""
CUVS_DEEPEST = 16_384
"""Most that cuVS returns."""
MOST_PROBES = 2048
"""Most lists that a GPU search visits."""


def load_gpu_faiss() -> Any:
    """Import a FAISS that sees a GPU.

    Raises:
        MissingDependencyError: there is none; importing FAISS's GPU build proves nothing, it also works
            without a GPU.
    """
    faiss = load_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise MissingDependencyError(
            "this FAISS is built for CPUs: pip uninstall faiss-cpu, then pip install 'recsys-engine[gpu]'"
        )
    if faiss.get_num_gpus() < 1:
        raise MissingDependencyError("FAISS sees no GPU here: use kind='auto', or check the NVIDIA driver")
    return faiss


def has_cuvs(faiss: Any) -> bool:
    """Whether this FAISS was built with cuVS."""
    return hasattr(faiss, "GpuIndexCagra")


def deepest(faiss: Any) -> int:
    """Most items that a GPU index of this FAISS returns for a query."""
    return CUVS_DEEPEST if has_cuvs(faiss) else CLASSIC_DEEPEST


def to_gpu(faiss: Any, index: Any) -> tuple[Any, Any]:
    """Copy a CPU index to GPU 0.

    Returns:
        The copy and its resources, which must live as long.
    """
    resources = faiss.StandardGpuResources()
    return faiss.index_cpu_to_gpu(resources, 0, index), resources


def refuse_selector(faiss: Any, selector: Any) -> None:
    """Refuse a selector on a GPU index that would ignore it.

    Raises:
        RetrievalError: see above.
    """
    if selector is not None and not has_cuvs(faiss):
        raise RetrievalError(
            "classic GPU indexes ignore selectors silently: gather the allowed items, search on the CPU, or "
            "install faiss-gpu-cuvs"
        )
