"""An item index to and from its bundle.

This module knows the parts of an index and not the class that holds them together, which calls it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch

from recsys.errors import ArgumentError, ConfigError, RetrievalError
from recsys.retrieval.backends import SearchBackend, build_backend, check_place, choose_kind, on_server
from recsys.retrieval.bundle import MANIFEST, Contents, Manifest, read_bundle, write_bundle
from recsys.retrieval.categories import Categories
from recsys.retrieval.changes import Changes
from recsys.retrieval.golden import check_golden, golden_answers, golden_queries
from recsys.retrieval.metric import Metric
from recsys.retrieval.options import IndexOptions

IndexType = TypeVar("IndexType")


class IndexParts(Protocol):
    """What is written of an index; `ItemIndex` says what each of them is."""

    backend: SearchBackend
    kind: str
    asked_kind: str
    metric: Metric
    fingerprint: str
    options: IndexOptions
    vocabulary: str
    categories: Categories | None
    notes: dict[str, Any]
    extra: dict[str, torch.Tensor]
    n_items: int
    width: int

    @property
    def vectors(self) -> torch.Tensor:
        """(V, d) as searched."""


@runtime_checkable
class Published(Protocol):
    """A backend that somebody has to be told of once the index is saved."""

    def publish(self) -> None:
        """Let what was saved now take the place of what was saved before."""


def catalog_name(fingerprint: str, vocabulary: str) -> str:
    """Names the encoder and the item ids of an index to the server that it lies on."""
    return f"{fingerprint} {vocabulary}"


def save_index(
    index: IndexParts,
    folder: str | Path,
    states: torch.Tensor | None = None,
    changes: Changes | None = None,
) -> str:
    """Write an index with golden queries and what changed since; see `ItemIndex.save`."""
    backend = index.backend
    vectors = index.vectors.cpu().contiguous()
    golden, recall = golden_answers(backend, golden_queries(vectors, states))
    contents: Contents = {"vectors": {"vectors": vectors}, "golden": golden}
    parts = backend.parts()
    if parts:
        contents["parts"] = parts
    if index.categories is not None:
        contents["categories"] = index.categories.tensors()
    if index.extra:
        contents["extra"] = index.extra
    if changes is not None and not changes.empty:
        contents["changes"] = changes.tensors()
    manifest = Manifest(
        kind=index.asked_kind,
        built_kind=index.kind,
        metric=index.metric,
        items=index.n_items,
        width=index.width,
        fingerprint=index.fingerprint,
        vocabulary=index.vocabulary,
        options=index.options.as_saved(),
        golden_recall=recall,
        notes=index.notes,
    )
    state = write_bundle(folder, manifest, contents)
    if isinstance(backend, Published):
        backend.publish()
    return state


def load_index(
    make: Callable[..., IndexType],
    folder: str | Path,
    fingerprint: str | None,
    vocabulary: str | None,
    kind: str | None,
) -> tuple[IndexType, Changes | None, str]:
    """Open an index and ask its golden queries; see `ItemIndex.load`.

    Args:
        make: `ItemIndex`, which is called with the parts.
        folder: as the next three, of `ItemIndex.load`.
        fingerprint: the encoder's.
        vocabulary: digest of the item ids.
        kind: open as this kind.

    Returns:
        The index as it was built, what changed since, and the name of the folder's state.
    """
    file = Path(folder) / MANIFEST
    manifest, contents, state = read_bundle(folder, fingerprint, vocabulary)
    damaged = RetrievalError(f"{file}: does not fit its files; build the index again")
    vectors = contents["vectors"].get("vectors")
    shape = manifest.items, manifest.width
    if vectors is None or vectors.shape != shape or vectors.dtype != torch.float32:
        raise damaged
    asked = manifest.kind if kind is None else kind
    resolved, reason = choose_kind(asked, vectors)
    parts = contents.get("parts") if resolved == manifest.built_kind else None
    # Saved vectors are as searched: normalizing again could change their last bits.
    metric = cast(Metric, manifest.metric)
    try:
        options = IndexOptions(**manifest.options)
    except (TypeError, ConfigError):
        raise damaged from None
    if on_server(resolved) and resolved != manifest.built_kind:
        check_place(resolved, options)
    try:
        catalog = catalog_name(manifest.fingerprint, manifest.vocabulary)
        backend = build_backend(resolved, vectors, metric, options, parts, catalog=catalog)
        categories = None
        if "categories" in contents:
            categories = Categories.from_tensors(contents["categories"], manifest.items)
        same = resolved == manifest.built_kind
        changes = None
        if "changes" in contents:
            changes = Changes.from_tensors(contents["changes"], manifest.items, manifest.width)
        check_golden(backend, contents["golden"], manifest.golden_recall if same else 0.0)
    except (KeyError, TypeError, ConfigError, ArgumentError):
        raise damaged from None
    except RetrievalError as error:
        raise type(error)(f"{file}: {error}") from None
    index = make(
        backend,
        kind=resolved,
        asked_kind=asked,
        reason=reason,
        metric=metric,
        fingerprint=manifest.fingerprint,
        options=options,
        vocabulary=manifest.vocabulary,
        categories=categories,
        notes=manifest.notes,
        extra=contents.get("extra"),
    )
    return index, changes, state
