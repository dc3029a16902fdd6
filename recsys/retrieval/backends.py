"""The kinds of index and how one is chosen; each kind is a module of its own, imported when asked for."""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from torch import Tensor

from recsys.errors import ArgumentError, MissingDependencyError
from recsys.retrieval.filters import Filters
from recsys.retrieval.metric import Metric


class SearchBackend(Protocol):
    """One kind of index over fixed vectors."""

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""

    @property
    def vectors(self) -> Tensor:
        """(V, d) float32, as searched (normalized for cosine)."""

    def search(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """Return (b, k) float32 scores and (b, k) int64 ids of the best permitted items."""


# Kind -> module whose function `build(vectors, metric)` makes the backend.
_KINDS = {
    "exact": "recsys.retrieval.exact",
    "flat": "recsys.retrieval.flat",
}


def known_kinds() -> tuple[str, ...]:
    """Names that `kind=` takes, "auto" included."""
    return (*_KINDS, "auto")


def register_kind(kind: str, module: str) -> None:
    """Add a kind of index: `module` must have `build(vectors, metric) -> SearchBackend`."""
    if kind in known_kinds():
        raise ArgumentError(f"index kind {kind!r} is taken: choose another name")
    _KINDS[kind] = module


def choose_kind(kind: str, vectors: Tensor) -> tuple[str, str]:
    """Resolve "auto" and say why.

    Args:
        kind: a known kind or "auto".
        vectors: what will be indexed; its device matters.

    Returns:
        The kind and a reason in words.

    Raises:
        ArgumentError: the kind is not known.
    """
    if kind not in known_kinds():
        raise ArgumentError(f"index kind {kind!r} is not known: choose one of {', '.join(known_kinds())}")
    if kind != "auto":
        return kind, "asked for"
    if vectors.device.type != "cpu":
        return "exact", f"the vectors are on {vectors.device}, where FAISS's CPU index cannot read them"
    from recsys.retrieval.faiss_library import load_faiss

    try:
        faiss = load_faiss()
    except MissingDependencyError as error:
        return "exact", str(error)
    return "flat", f"FAISS {faiss.__version__} is installed"


def build_backend(kind: str, vectors: Tensor, metric: Metric) -> SearchBackend:
    """Build an index of a resolved kind over (V, d) float32 vectors."""
    build: Callable[[Tensor, Metric], SearchBackend] = import_module(_KINDS[kind]).build
    return build(vectors, metric)
