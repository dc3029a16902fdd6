"""The kinds of index and how one is chosen; each kind is a module of its own, imported when asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor

from recsys.errors import ArgumentError, MissingDependencyError
from recsys.retrieval.filters import Filters
from recsys.retrieval.kind_choice import kind_for
from recsys.retrieval.metric import Metric
from recsys.retrieval.options import IndexOptions

Parts = Mapping[str, Tensor]


class SearchBackend(Protocol):
    """One kind of index over fixed vectors."""

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""

    @property
    def vectors(self) -> Tensor:
        """(V, d) float32, as searched (normalized for cosine)."""

    @property
    def exact(self) -> bool:
        """Whether answers are the best items, not merely likely to be."""

    def search(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """Return (b, k) float32 scores and (b, k) int64 ids of the best permitted items."""

    def search_exactly(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """As `search`, by a scan: the same for an exact kind."""

    def parts(self) -> dict[str, Tensor]:
        """What took long to build (a graph, lists), to be saved beside the vectors; may be empty."""


# Kind -> module whose `build(vectors, metric, options, parts)` makes the backend; parts are what
# `SearchBackend.parts` gave, when a saved index is opened, and else None.
_KINDS = {
    "exact": "recsys.retrieval.exact",
    "flat": "recsys.retrieval.flat",
    "ivf": "recsys.retrieval.ivf",
    "ivfpq": "recsys.retrieval.ivfpq",
    "hnsw": "recsys.retrieval.hnsw",
    "gpu-flat": "recsys.retrieval.gpu_flat",
    "gpu-ivf": "recsys.retrieval.gpu_ivf",
    "gpu-cagra": "recsys.retrieval.gpu_cagra",
}


def known_kinds() -> tuple[str, ...]:
    """Names that `kind=` takes, "auto" included."""
    return (*_KINDS, "auto")


def register_kind(kind: str, module: str) -> None:
    """Add a kind: `module` must have `build(vectors, metric, options, parts) -> SearchBackend`."""
    if kind in known_kinds():
        raise ArgumentError(f"index kind {kind!r} is taken: choose another name")
    _KINDS[kind] = module


def check_kind(kind: str) -> None:
    """Refuse a kind that cannot be built here, before there is anything to build it of.

    Raises:
        ArgumentError: the kind is not known.
        MissingDependencyError: its library, or a GPU for it, is not there.
    """
    if kind not in known_kinds():
        raise ArgumentError(f"index kind {kind!r} is not known: choose one of {', '.join(known_kinds())}")
    if kind.startswith("gpu-"):
        from recsys.retrieval.gpu_library import load_gpu_faiss

        load_gpu_faiss()
    elif kind in ("flat", "ivf", "ivfpq", "hnsw"):
        from recsys.retrieval.faiss_library import load_faiss

        load_faiss()


def choose_kind(kind: str, vectors: Tensor) -> tuple[str, str]:
    """Resolve "auto" and say why.

    Args:
        kind: a known kind or "auto".
        vectors: what will be indexed; its size and device matter.

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
        return "exact", f"the vectors are on {vectors.device}, which scans any catalog that fits it"
    from recsys.retrieval.faiss_library import load_faiss

    try:
        faiss = load_faiss()
    except MissingDependencyError as error:
        return "exact", str(error)
    chosen, reason = kind_for(len(vectors))
    return chosen, f"{reason}; FAISS {faiss.__version__} is installed"


def build_backend(
    kind: str, vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None
) -> SearchBackend:
    """Build an index of a resolved kind over (V, d) float32 vectors, or rebuild it from saved parts."""
    build: Any = import_module(_KINDS[kind]).build
    made: SearchBackend = build(vectors, metric, options, parts)
    return made
