"""What is here: versions, processor and the kernels it opens, threads, FAISS, GPU, folders for caches."""

import importlib
import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recsys import __version__

LIBRARIES = (
    *("torch", "numba", "llvmlite", "numpy", "polars", "pyarrow", "matplotlib", "safetensors"),
    *("typer", "rich", "triton", "mamba_ssm", "optuna"),
)
_FEATURES = ("avx2", "fma", "avx512f", "avx512bf16", "amx-tile", "amx-bf16", "neon", "sve")
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMBA_CACHE_DIR",
    "NUMBA_DISABLE_JIT",
    "POLARS_MAX_THREADS",
    "RECSYS_CACHE",
    "RECSYS_TILES",
    "TRITON_INTERPRET",
    "CUDA_VISIBLE_DEVICES",
)


def versions() -> dict[str, str | None]:
    """Versions of the engine, Python and the libraries; None for what is not installed."""
    found: dict[str, str | None] = {"recsys": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor() -> dict[str, Any]:
    """The processor, its features that kernels ask for, and which kernels these open."""
    from llvmlite import binding  # type: ignore[import-untyped]

    from recsys.kernels.shared.vector import LANES
    from recsys.kernels.shared.vector.tiles import tiles_available

    features = binding.get_host_cpu_features()
    return {
        "name": processor_name(),
        "machine": f"{platform.system()} {platform.machine()}",
        "features": [name for name in _FEATURES if features.get(name)],
        "vectors": f"{LANES} float32 at a time",
        "matrix_tiles": tiles_available(),
    }


def threads() -> dict[str, Any]:
    """Cores, threads of the libraries, and variables of the environment that say so."""
    import numba
    import polars as pl
    import torch

    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cores": os.cpu_count(),
        "allowed_cores": len(affinity(0)) if affinity else os.cpu_count(),
        "torch": torch.get_num_threads(),
        # What it would take; asking it for the number in use would start them, and OpenMP's with them.
        "numba": numba.config.NUMBA_NUM_THREADS,  # type: ignore[attr-defined]
        "polars": pl.thread_pool_size(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def faiss() -> dict[str, Any]:
    """FAISS's distributions, how it was built, and the kinds of index that can be built here."""
    from recsys.errors import MissingDependencyError
    from recsys.retrieval.backends import known_kinds, on_server
    from recsys.retrieval.faiss_library import installed_distributions, load_faiss
    from recsys.retrieval.gpu_library import has_cuvs, load_gpu_faiss

    facts: dict[str, Any] = {
        "distributions": [f"{name} {number}" for name, number in installed_distributions()]
    }
    kinds = [kind for kind in known_kinds() if kind != "auto" and not on_server(kind)]
    try:
        library = load_faiss()
        facts["build"] = str(library.get_compile_options()).strip()
    except MissingDependencyError as error:
        return {**facts, "problem": str(error), "kinds": ["exact"]}
    try:
        if not has_cuvs(load_gpu_faiss()):
            kinds.remove("gpu-cagra")
    except MissingDependencyError as error:
        facts["gpu"] = str(error)
        kinds = [kind for kind in kinds if not kind.startswith("gpu-")]
    return {**facts, "kinds": kinds}


def gpu() -> dict[str, Any]:
    """GPUs that torch sees."""
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"available": torch.cuda.is_available(), "built_for": torch.version.cuda, "devices": names}


def folders() -> dict[str, dict[str, Any]]:
    """Folders that are written beside a run, and whether they can be."""
    from recsys.datasets.sources.known import cache_folder

    compiled, temporary = compiled_code_folder(), Path(tempfile.gettempdir())
    return {
        "compiled kernels": {
            "path": None if compiled is None else str(compiled),
            "writable": compiled is not None,
        },
        "known logs": {"path": str(cache_folder()), "writable": _writable(cache_folder())},
        "temporary files": {"path": str(temporary), "writable": _writable(temporary)},
    }


def compiled_code_folder() -> Path | None:
    """Where compiled kernels are kept; None if every process has to compile them anew."""
    from recsys.kernels.shared.vector.code_cache import CodeCache

    # Every kernel's folder is found alike: this one stands for all.
    kernel = importlib.import_module("recsys.kernels.rescoring.cpu").rescore
    try:
        return Path(CodeCache(kernel.py_func).cache_path)
    except RuntimeError:
        return None


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the first of those above that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def processor_name() -> str:
    """The name that Linux gives, or what Python knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as text:
            named = [line.partition(":")[2].strip() for line in text if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor() or platform.machine()
