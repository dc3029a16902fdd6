"""The item index: nearest items to a query state, under filters, with exactly k answers where k exist."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import ArgumentError, RetrievalError
from recsys.retrieval.backends import SearchBackend, build_backend, check_place, choose_kind, on_server
from recsys.retrieval.categories import Categories
from recsys.retrieval.checks import Numbers, as_array, as_tensor, check_options, check_queries, check_vectors
from recsys.retrieval.filters import Filters, check_ids, merge_filters
from recsys.retrieval.golden import measure_recall
from recsys.retrieval.metric import METRICS, Metric, normalized
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.saving import catalog_name, load_index, save_index

MOST_ANSWERS = 2**31
"""Most answers of one call, 24 GiB of scores and ids."""


class NeighborTensors(NamedTuple):
    """Answers to tensor queries."""

    scores: Tensor
    """(b, k) float32, best first; -inf where no candidate was left."""

    ids: Tensor
    """(b, k) int64; -1 where no candidate was left."""


class NeighborArrays(NamedTuple):
    """Answers to array queries."""

    scores: NDArray[np.float32]
    """(b, k) float32, best first; -inf where no candidate was left."""

    ids: NDArray[np.int64]
    """(b, k) int64; -1 where no candidate was left."""


class ItemIndex:
    """An immutable index over item vectors; make one with `build` or `load`.

    Attributes:
        kind: what it is, e.g. "exact" or "hnsw".
        asked_kind: what was asked for, maybe "auto".
        reason: why it is of this kind, in words.
        metric: "inner_product", "l2" or "cosine".
        fingerprint: of the encoder that made the vectors.
        options: how it is built and searched.
        vocabulary: digest of the item ids that the rows stand for; empty if none was given.
        categories: of the items, or None.
        notes, extra: values and tensors that the maker wanted to be saved with it.
        n_items: number of vectors V.
        width: length of each vector d.
    """

    def __init__(
        self,
        backend: SearchBackend,
        *,
        kind: str,
        asked_kind: str,
        reason: str,
        metric: Metric,
        fingerprint: str,
        options: IndexOptions,
        vocabulary: str = "",
        categories: Categories | None = None,
        notes: Mapping[str, Any] | None = None,
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.backend = backend
        self.kind = kind
        self.asked_kind = asked_kind
        self.reason = reason
        self.metric: Metric = metric
        self.fingerprint = fingerprint
        self.options = options
        self.vocabulary = vocabulary
        self.categories = categories
        self.notes = dict(notes or {})
        self.extra = dict(extra or {})
        self.n_items, self.width = backend.shape

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self.backend, "_faiss") or hasattr(self.backend, "_proposer"):
            raise ArgumentError(
                f"an index of kind {self.kind} is not pickled: save(FOLDER) it, and load(FOLDER) elsewhere"
            )
        return self.__dict__

    @classmethod
    def build(
        cls,
        vectors: Tensor | NDArray[np.floating[Any]],
        *,
        kind: str = "auto",
        metric: str = "inner_product",
        fingerprint: str,
        options: Mapping[str, object] | IndexOptions | None = None,
        vocabulary: str = "",
        categories: Categories | None = None,
        notes: Mapping[str, Any] | None = None,
        extra: Mapping[str, Tensor] | None = None,
    ) -> "ItemIndex":
        """Index a copy of the vectors; the vector in row i is item i.

        Args:
            vectors: (V, d) floating, finite; kept as float32.
            kind: exact on any device: "exact" (the ranking kernel); FAISS on the CPU: "flat" (exact), "ivf",
                "ivfpq", "hnsw" (approximate); FAISS on a GPU: "gpu-flat" (exact), "gpu-ivf", "gpu-cagra";
                approximate on a server, whose address is among the options: "qdrant", "pgvector"; or "auto"
                (by size where FAISS is installed and the vectors are on the CPU, else exact).
            metric: "inner_product", "l2" (score = -squared distance) or "cosine".
            fingerprint: names the encoder that made the vectors; `load` compares it.
            options: `IndexOptions`, or those of its fields that differ from the defaults.
            vocabulary: digest of the item ids that the rows stand for; `load` compares it, too.
            categories: of the items, for `search(category=)`.
            notes: plain values to be saved with the index.
            extra: tensors to be saved with it.

        Raises:
            ArgumentError: a shape, dtype, kind or metric does not fit, or a vector is not finite.
            ConfigError: an option is unknown or out of range.
            MissingDependencyError: the kind needs a library, or a GPU, that is not there.
            RetrievalError: the server cannot be reached, or refuses.
        """
        settings = check_options(options)
        if categories is not None and categories.n_items != len(vectors):
            raise ArgumentError(
                f"categories are for {categories.n_items} items and there are {len(vectors)} vectors"
            )
        if metric not in METRICS:
            raise ArgumentError(f"metric={metric!r} is not known: choose one of {', '.join(METRICS)}")
        checked = check_vectors("vectors", vectors)
        if checked.shape[0] == 0 or checked.shape[1] == 0:
            raise ArgumentError(
                f"vectors has shape {tuple(checked.shape)}: give at least one item and one column"
            )
        resolved, reason = choose_kind(kind, checked)
        check_place(kind, settings)
        known_metric = cast(Metric, metric)
        if metric == "cosine":
            checked = torch.from_numpy(normalized(checked.cpu().numpy())).to(checked.device)
        return cls(
            build_backend(
                resolved, checked, known_metric, settings, catalog=catalog_name(fingerprint, vocabulary)
            ),
            kind=resolved,
            asked_kind=kind,
            reason=reason,
            metric=known_metric,
            fingerprint=fingerprint,
            options=settings,
            vocabulary=vocabulary,
            categories=categories,
            notes=notes,
            extra=extra,
        )

    @property
    def exact(self) -> bool:
        """Whether answers are the best items; approximate kinds give likely ones, under the same filters."""
        return self.backend.exact

    @property
    def counters(self) -> dict[str, int]:
        """What searches did so far, by `recsys.retrieval.counters.Counters`' names."""
        counters = getattr(self.backend, "counters", None)
        return {} if counters is None else counters.as_dict()

    @property
    def tallies(self) -> dict[str, int]:
        """The earlier name of `counters`."""
        return self.counters

    @property
    def vectors(self) -> Tensor:
        """(V, d) float32 vectors as they are searched; for cosine, normalized."""
        return self.backend.vectors

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(r, d) float32 vectors of some items, as they are searched."""
        array = getattr(self.backend, "array", None)
        if array is not None:
            return array[rows]  # type: ignore[no-any-return]
        return self.backend.vectors[torch.from_numpy(rows)].cpu().numpy()

    def like(self, vectors: NDArray[np.float32], *, kind: str | None = None) -> "ItemIndex":
        """An index with this one's kind, metric and options over other vectors, taken as they are searched.

        Args:
            vectors: (n, d) float32; for cosine, normalized.
            kind: another kind.

        Raises:
            ArgumentError: it would lie on a server, where only `build` puts one.
        """
        given = torch.from_numpy(np.ascontiguousarray(vectors))
        asked = kind or self.asked_kind
        resolved, reason = choose_kind(asked, given)
        if on_server(resolved):
            raise ArgumentError(
                f"an index of kind {resolved} is not made of another; build one anew with kind={resolved!r}"
            )
        return ItemIndex(
            build_backend(resolved, given, self.metric, self.options),
            kind=resolved,
            asked_kind=asked,
            reason=reason,
            metric=self.metric,
            fingerprint=self.fingerprint,
            options=self.options,
            notes=self.notes,
        )

    @overload
    def search(
        self,
        queries: Tensor,
        k: int,
        *,
        exclude: tuple[Any, Any] | None = None,
        allow: Any = None,
        deny: Any = None,
        category: Any = None,
    ) -> NeighborTensors: ...

    @overload
    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: tuple[Any, Any] | None = None,
        allow: Any = None,
        deny: Any = None,
        category: Any = None,
    ) -> NeighborArrays: ...

    def search(
        self,
        queries: Tensor | NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: tuple[Any, Any] | None = None,
        allow: Any = None,
        deny: Any = None,
        category: Any = None,
    ) -> NeighborTensors | NeighborArrays:
        """Find the k best items of each query, by (score descending, id ascending).

        Args:
            queries: (b, d) floating, finite.
            k: answers per query, at least 1; may exceed the number of items.
            exclude: (ids (E,), offsets (b+1,)): what each query must not get, as arrays or tensors.
            allow: (A,) ids that may be returned at all; None for every item.
            deny: (D,) ids that are never returned.
            category: category number or numbers; only items of one of them may be returned.

        Returns:
            scores (b, k) float32 and ids (b, k) int64, tensors for tensors and arrays for arrays. Where
            fewer than k items are permitted, ids end in -1 and scores in -inf; never otherwise.

        Raises:
            ArgumentError: a shape does not fit, a query is not finite, k < 1, or an id is out of range.
        """
        if isinstance(k, bool) or int(k) != k or k < 1:
            raise ArgumentError(f"k={k!r} must be a whole number of at least 1")
        asked = check_queries(queries)
        if asked.shape[1] != self.width:
            raise ArgumentError(
                f"queries has width {asked.shape[1]}: the index holds vectors of width {self.width}"
            )
        if asked.shape[0] * int(k) > MOST_ANSWERS:
            raise ArgumentError(
                f"k={k} for {len(asked)} queries is more than memory holds; there are {self.n_items} items"
            )
        if category is not None:
            allow = self._of_category(category, allow)
        filters = merge_filters(self.n_items, asked.shape[0], exclude, allow, deny)
        scores, ids = self._answer(asked, int(k), filters)
        if isinstance(queries, Tensor):
            return NeighborTensors(*(as_tensor(found, queries.device) for found in (scores, ids)))
        return NeighborArrays(as_array(scores), as_array(ids))

    def _answer(self, asked: Numbers, k: int, filters: Filters) -> tuple[Numbers, Numbers]:
        """Answer checked queries, on the host as arrays where the backend lives there."""
        if asked.shape[0] == 0 or (filters.candidates is not None and len(filters.candidates) == 0):
            shape = asked.shape[0], k
            return np.full(shape, -np.inf, dtype=np.float32), np.full(shape, -1, dtype=np.int64)
        if self.metric == "cosine":
            asked = normalized(as_array(asked))
        search_arrays = getattr(self.backend, "search_arrays", None)
        if search_arrays is not None:
            return search_arrays(as_array(asked), k, filters)  # type: ignore[no-any-return]
        return self.backend.search(
            asked if isinstance(asked, Tensor) else torch.from_numpy(asked), k, filters
        )

    def _of_category(self, category: Any, allow: Any) -> Any:
        if self.categories is None:
            raise ArgumentError("category: this index was built without categories; pass allow instead")
        items = self.categories.items(category)
        return items if allow is None else np.intersect1d(items, check_ids("allow", allow, self.n_items))

    def measure_recall(self, queries: NDArray[np.floating[Any]], k: int = 10) -> float:
        """Find out which share of the k best items of queries a search finds: 1 for an exact kind.

        Args:
            queries: (b, d) of the kind that will come, such as users' states; no filters are set.
            k: answers per query, at most V.

        Raises:
            ArgumentError: no queries, or k is not in [1, V].
        """
        if len(queries) == 0 or not 1 <= k <= self.n_items:
            raise ArgumentError(
                f"{len(queries)} queries, k={k}: give queries and a k of 1 to {self.n_items:,}"
            )
        if self.exact:
            return 1.0
        host = as_array(check_queries(queries))
        asked = torch.from_numpy(normalized(host) if self.metric == "cosine" else host)
        truth, _ = self.backend.search_exactly(asked, k, merge_filters(self.n_items, len(asked)))
        return measure_recall(self.backend, asked, truth.cpu())

    def save(self, folder: str | Path, states: Tensor | None = None) -> None:
        """Write a bundle with checksums and golden queries; one already there is replaced as a whole.

        Args:
            folder: where.
            states: (s, d) user states, of which some become golden queries; None takes item vectors.

        Raises:
            RetrievalError: the folder holds something else, or cannot be written.
        """
        save_index(self, folder, states)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        fingerprint: str | None = None,
        *,
        vocabulary: str | None = None,
        kind: str | None = None,
    ) -> "ItemIndex":
        """Open a saved index after checking every byte of it and asking its golden queries.

        Args:
            folder: where `save` wrote.
            fingerprint: the encoder's; None does not compare.
            vocabulary: digest of the item ids; None does not compare.
            kind: open as this kind instead of the recorded one.

        Raises:
            RetrievalError: a file is missing, damaged or of an unknown version, the fingerprint or vocabulary
                differs, a golden query gets another answer, or items came or went since the index was built:
                `load_live` knows of them.
            IndexServerError: the server that it lies on cannot be reached, or has lost it.
            MissingDependencyError: the kind needs a library that is not installed.
        """
        index, changes, _ = load_index(cls, folder, fingerprint, vocabulary, kind)
        if changes is not None:
            raise RetrievalError(
                f"{folder}: items came or went since this index was built; open it by live_saving.load_live"
            )
        return index
