"""Which implementation of an operation runs: chosen by device and dtype, or forced by name.

An operation declares its implementations in one `BackendTable`, at its door: what is in the table is what
`backend=` accepts, and what is chosen is what is called.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Generic, TypeVar

import torch
from torch import Tensor

from recsys.errors import ArgumentError, MissingDependencyError
from recsys.kernels.shared.launching import interpreting

__all__ = ["BACKENDS", "BackendTable", "prefer_backend"]

BACKENDS = ("reference", "cpu", "triton", "mamba-ssm")
"""Names that `backend=` accepts, where the operation's table has them."""

_LIBRARY = {"cpu": "numba", "triton": "triton", "mamba-ssm": "mamba_ssm"}
_EXTRA = {"triton": "gpu", "mamba-ssm": "mamba"}
_COMPILED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Found once, at import: torch.compile follows `choose` but not a search for a library.
_INSTALLED = {name: find_spec(library) is not None for name, library in _LIBRARY.items()}

_preferred: ContextVar[str | None] = ContextVar("preferred_backend", default=None)

Implementation = TypeVar("Implementation")


class BackendTable(Generic[Implementation]):
    """The implementations of one operation by backend.

    A loader is a function that imports the implementation, where its libraries are heavy, and returns it: an
    `import` statement, which type checkers and torch.compile follow, and no name of a module in a string.
    "reference", the definition, runs anywhere; it is what a device or dtype without a kernel gets.
    """

    def __init__(self, operation: str, loaders: Mapping[str, Callable[[], Implementation]]) -> None:
        """Declare an operation.

        Args:
            operation: its name for messages: that of its folder, such as "scan".
            loaders: by backend, names out of `BACKENDS`; "reference" must be among them.

        Raises:
            ArgumentError: a name is unknown, or "reference" is missing.
        """
        unknown = [name for name in loaders if name not in BACKENDS]
        if unknown or "reference" not in loaders:
            raise ArgumentError(
                f"{operation}: backends are {', '.join(loaders)}, want 'reference' and others of "
                f"{', '.join(BACKENDS)}"
            )
        self.operation = operation
        self._loaders = {name: loaders[name] for name in BACKENDS if name in loaders}

    @property
    def names(self) -> tuple[str, ...]:
        """The backends of the operation, in the order of `BACKENDS`."""
        return tuple(self._loaders)

    def choose(self, backend: str | None, tensor: Tensor) -> str:
        """Choose a backend, or check the one that was asked for.

        Args:
            backend: one of `names`, or None for the preferred one (`prefer_backend`), else the compiled
                kernel of the tensor's device ("cpu" or "triton"), and "reference" for float64 tensors and
                where there is no compiled kernel.
            tensor: the operation's main input; its device and dtype decide.

        Returns:
            The name of a backend that can run, for `load`.

        Raises:
            ArgumentError: the name is not in the table, or that backend takes neither this device nor this
                dtype.
            MissingDependencyError: the backend's library is not installed.
        """
        device = "cuda" if tensor.is_cuda else tensor.device.type
        if backend is None:
            # torch.compile cannot follow a context variable: compiled code takes the default.
            preferred = None if torch.compiler.is_compiling() else _preferred.get()
            if preferred is not None and preferred in self._loaders:
                backend = preferred
        if backend is None:
            compiled = {"cpu": "cpu", "cuda": "triton"}.get(device)
            usable = compiled and tensor.dtype in _COMPILED_DTYPES
            if compiled and usable and compiled in self._loaders and _INSTALLED[compiled]:
                return compiled
            return "reference"
        if backend not in self._loaders:
            raise ArgumentError(
                f"{self.operation}: backend is {backend!r}, use one of {', '.join(self._loaders)} or None"
            )
        if backend == "reference":
            return backend
        if not _INSTALLED[backend]:
            raise _missing(self.operation, backend)
        wanted = "cpu" if backend == "cpu" else "cuda"
        if backend == "triton" and device == "cpu" and interpreting():
            wanted = "cpu"  # Triton's interpreter runs on CPU tensors
        if device != wanted:
            raise ArgumentError(
                f"{self.operation}: backend {backend!r} needs {wanted} tensors, not {device}: move them or "
                "use None"
            )
        if tensor.dtype not in _COMPILED_DTYPES:
            raise ArgumentError(
                f"{self.operation}: backend {backend!r} takes float32, bfloat16 or float16, not "
                f"{tensor.dtype}: cast, or use backend='reference'"
            )
        return backend

    def load(self, name: str) -> Implementation:
        """Return the implementation of a backend that `choose` returned."""
        return self._loaders[name]()


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
