"""Which implementation of an operation runs: chosen by device and dtype, or forced by name.

An operation is a folder beside this file; its backends are the modules in it. "reference" runs anywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from recsys.errors import ArgumentError, MissingDependencyError
from recsys.kernels.launching import interpreting

__all__ = ["BACKENDS", "choose_backend", "prefer_backend"]

BACKENDS = ("reference", "cpu", "triton", "mamba-ssm")
"""Names that `backend=` accepts, where the operation has the module."""

_LIBRARY = {"cpu": "numba", "triton": "triton", "mamba-ssm": "mamba_ssm"}
_EXTRA = {"triton": "gpu", "mamba-ssm": "mamba"}
_COMPILED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


# Found once, at import: torch.compile follows calls of choose_backend but not a search of the disk.
_MODULES = frozenset(
    (path.parent.name, path.stem.replace("_", "-")) for path in Path(__file__).parent.glob("*/*.py")
)
_INSTALLED = {name: find_spec(library) is not None for name, library in _LIBRARY.items()}


_preferred: ContextVar[str | None] = ContextVar("preferred_backend", default=None)


@contextmanager
def prefer_backend(name: str | None) -> Iterator[None]:
    """Let operations called without `backend=` inside a `with` block take this one where they have it.

    Operations that lack it choose as ever: "mamba-ssm" is the scan's alone. Holds in this thread and what
    it awaits.

    Args:
        name: one of `BACKENDS`; None or "auto" to choose by device and dtype.

    Raises:
        ArgumentError: the name is unknown.
        MissingDependencyError: the backend's library is not installed.
    """
    if name in (None, "auto"):
        yield
        return
    if name not in BACKENDS:
        raise ArgumentError(f"backend {name!r} is not known: choose auto, {', '.join(BACKENDS)}")
    if not _INSTALLED.get(name, True):
        raise _missing("kernels", name)
    token = _preferred.set(name)
    try:
        yield
    finally:
        _preferred.reset(token)


def _missing(operation: str, backend: str) -> MissingDependencyError:
    extra = _EXTRA.get(backend)
    remedy = f"pip install 'recsys-engine[{extra}]'" if extra else f"pip install {_LIBRARY[backend]}"
    return MissingDependencyError(
        f"{operation}: backend {backend!r} needs {_LIBRARY[backend]}, which is not installed: {remedy}"
    )


def choose_backend(operation: str, backend: str | None, tensor: Tensor) -> str:
    """Choose the backend of an operation, or check the one that was asked for.

    Args:
        operation: name of the operation's folder, such as "scan".
        backend: one of `BACKENDS`, or None for the compiled kernel of the tensor's device ("cpu" or
            "triton"), and "reference" for float64 tensors and where there is no compiled kernel.
        tensor: the operation's main input; its device and dtype decide.

    Returns:
        The name of a backend that can run.

    Raises:
        ArgumentError: the name is unknown, or that backend takes neither this device nor this dtype.
        MissingDependencyError: the backend's library is not installed.
    """
    device = "cuda" if tensor.is_cuda else tensor.device.type
    if backend is None:
        # torch.compile cannot follow a context variable: compiled code takes the default.
        preferred = None if torch.compiler.is_compiling() else _preferred.get()
        if preferred is not None and (operation, preferred) in _MODULES:
            backend = preferred
    if backend is None:
        compiled = {"cpu": "cpu", "cuda": "triton"}.get(device)
        usable = compiled and tensor.dtype in _COMPILED_DTYPES
        if compiled and usable and (operation, compiled) in _MODULES and _INSTALLED[compiled]:
            return compiled
        return "reference"
    known = [name for name in BACKENDS if (operation, name) in _MODULES]
    if backend not in known:
        raise ArgumentError(f"{operation}: backend is {backend!r}, use one of {', '.join(known)} or None")
    if backend == "reference":
        return backend
    if not _INSTALLED[backend]:
        raise _missing(operation, backend)
    wanted = "cpu" if backend == "cpu" else "cuda"
    if backend == "triton" and device == "cpu" and interpreting():
        wanted = "cpu"  # Triton's interpreter runs on CPU tensors
    if device != wanted:
        raise ArgumentError(
            f"{operation}: backend {backend!r} needs {wanted} tensors, not {device}: move them or use None"
        )
    if tensor.dtype not in _COMPILED_DTYPES:
        raise ArgumentError(
            f"{operation}: backend {backend!r} takes float32, bfloat16 or float16, not {tensor.dtype}: "
            "cast, or use backend='reference'"
        )
    return backend
