"""The kinds of index and how one is chosen; each kind is a module of its own, imported when asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a kind of index before its module is imported.

    Attributes:
        module: whose `build(vectors, metric, options, parts)` makes the backend; parts are what
            `SearchBackend.parts` gave, when a saved index is opened, and else None.
        library: "faiss", "gpu-faiss", "qdrant", "pgvector" or "" for what has to be installed.
        raise_recall: options that make an approximate kind find more, in words; "" for an exact one.
        place: options that say where it lies, if that is a server; `build` then takes the catalog, too.
    """

    module: str
    library: str = ""
    raise_recall: str = ""
    place: tuple[str, ...] = ()


_KINDS = {
    "exact": Kind("recsys.retrieval.exact"),
    "flat": Kind("recsys.retrieval.flat", "faiss"),
    "ivf": Kind("recsys.retrieval.ivf", "faiss", "nprobe"),
    "ivfpq": Kind("recsys.retrieval.ivfpq", "faiss", "nprobe and refine"),
    "hnsw": Kind("recsys.retrieval.hnsw", "faiss", "ef_search"),
    "gpu-flat": Kind("recsys.retrieval.gpu_flat", "gpu-faiss"),
    "gpu-ivf": Kind("recsys.retrieval.gpu_ivf", "gpu-faiss", "nprobe"),
    "gpu-cagra": Kind("recsys.retrieval.gpu_cagra", "gpu-faiss", "ef_search"),
    "qdrant": Kind("recsys.retrieval.qdrant", "qdrant", "ef_search", ("url", "collection")),
    "pgvector": Kind("recsys.retrieval.pgvector", "pgvector", "ef_search", ("dsn", "collection")),
}


def known_kinds() -> tuple[str, ...]:
    """Names that `kind=` takes, "auto" included."""
    return (*_KINDS, "auto")


def register_kind(kind: str, module: str, *, raise_recall: str = "") -> None:
    """Add a kind: `module` must have `build(vectors, metric, options, parts) -> SearchBackend`.

    Args:
        kind: its name.
        module: to import when it is asked for.
        raise_recall: options that make it find more, if it is approximate.

    Raises:
        ArgumentError: the name is taken.
    """
    if kind in known_kinds():
        raise ArgumentError(f"index kind {kind!r} is taken: choose another name")
    _KINDS[kind] = Kind(module, raise_recall=raise_recall)


def low_recall_remedy(kind: str) -> str:
    """What to do where an approximate index finds too little, in words."""
    options = _KINDS[kind].raise_recall
    return f"raise {options} with --set, or take --kind flat" if options else "take --kind flat"


def on_server(kind: str) -> bool:
    """Whether an index of this kind lies on a server, which may be away."""
    return kind in _KINDS and bool(_KINDS[kind].place)


def check_place(kind: str, options: IndexOptions) -> None:
    """Refuse a kind on a server without an address there, and an address that a kind has no use for.

    Raises:
        ArgumentError: see above, or the address is not one.
        MissingDependencyError: a library that reads addresses is not installed.
    """
    needed = _KINDS[kind].place if kind in _KINDS else ()
    for name in ("url", "dsn", "collection"):
        given = bool(getattr(options, name))
        if given and name not in needed:
            users = " or ".join(f"kind={other!r}" for other, own in _KINDS.items() if name in own.place)
            raise ArgumentError(f"{name}= is not for kind={kind!r}: leave it out, or ask for {users}")
        if not given and name in needed:
            address = "url=http://host:6333" if "url" in needed else "dsn=postgresql://user@host/database"
            raise ArgumentError(
                f"kind={kind!r} lies on a server and {name} is not given: "
                f"`recsys index RUN --kind {kind}` takes {address} and collection=NAME"
            )
    if needed:
        from recsys.retrieval.addresses import check_collection, check_dsn, check_url

        check_collection(options.collection)
        if "url" in needed:
            check_url(options.url)
        else:
            check_dsn(options.dsn)


def check_kind(kind: str, options: IndexOptions | None = None) -> None:
    """Refuse a kind that cannot be built here, before there is anything to build it of.

    Args:
        kind: to be built.
        options: it is to be built by; None for the defaults.

    Raises:
        ArgumentError: the kind is not known, or lies on a server of which no address is given.
        MissingDependencyError: its library, or a GPU for it, is not there.
    """
    if kind not in known_kinds():
        raise ArgumentError(f"index kind {kind!r} is not known: choose one of {', '.join(known_kinds())}")
    library = _KINDS[kind].library if kind in _KINDS else ""
    try:
        if library == "gpu-faiss":
            from recsys.retrieval.gpu_library import load_gpu_faiss

            load_gpu_faiss()
        elif library == "faiss":
            from recsys.retrieval.faiss_library import load_faiss

            load_faiss()
        elif library == "qdrant":
            from recsys.retrieval.qdrant_library import load_qdrant

            load_qdrant()
        elif library == "pgvector":
            from recsys.retrieval.pgvector_library import load_pgvector

            load_pgvector()
        check_place(kind, options or IndexOptions())
    except MissingDependencyError as error:
        raise MissingDependencyError(f"index kind {kind!r}: {error}") from None


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
    kind: str,
    vectors: Tensor,
    metric: Metric,
    options: IndexOptions,
    parts: Parts | None = None,
    *,
    catalog: str = "",
) -> SearchBackend:
    """Build an index of a resolved kind over (V, d) float32 vectors, or rebuild it from saved parts.

    Args:
        kind: resolved.
        vectors: (V, d) float32.
        metric: of the scores.
        options: of the index.
        parts: saved ones.
        catalog: names the encoder and the item ids; what lies on a server is kept under it.
    """
    build: Any = import_module(_KINDS[kind].module).build
    more = {"catalog": catalog} if on_server(kind) else {}
    made: SearchBackend = build(vectors, metric, options, parts, **more)
    return made
