"""From user states to items: which vectors stand for the items, and what queries meet them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.decoding.latent import with_column
from recsys.decoding.local_latent import LocalLatent
from recsys.errors import ArgumentError, RetrievalError
from recsys.retrieval.changes import Changes
from recsys.retrieval.item_index import ItemIndex, NeighborArrays
from recsys.retrieval.live import LiveIndex, Version
from recsys.retrieval.live_saving import amend_live
from recsys.retrieval.merging import merge_best
from recsys.retrieval.saving import load_index, save_index

Vectors = Literal["embedding", "latent", "mixed"]
Aggregate = Literal["global", "local"]
VECTORS: tuple[str, ...] = get_args(Vectors)
AGGREGATES: tuple[str, ...] = get_args(Aggregate)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How items are found; kept in the index's notes.

    Attributes:
        vectors: "embedding" (the tied table, by inner product), "latent" (mean states of the training
            histories that an item followed, by L2) or "mixed" (both, by one inner product).
        aggregate: "global" (one mean per item) or "local" (the mean of the states nearest to the query).
        weight: mixed: share of the latent part.
        ratio: mixed: what brings the latent scores to the embedding's spread.
        cap: most states kept of an item; None keeps all.
        neighbours: local: states that make the vectors.
        ndcg: NDCG@10 on the validation events, by which the above were chosen; None if nothing was.
    """

    vectors: Vectors = "embedding"
    aggregate: Aggregate = "global"
    weight: float = 0.0
    ratio: float = 1.0
    cap: int | None = None
    neighbours: int = 0
    ndcg: float | None = None


def check_decoding(vectors: str, aggregate: str) -> None:
    """Refuse names that are not known, and a local aggregation of something else than latent vectors.

    Raises:
        ArgumentError: see above.
    """
    if vectors not in VECTORS:
        raise ArgumentError(f"vectors={vectors!r} is not known: choose one of {', '.join(VECTORS)}")
    if aggregate not in AGGREGATES:
        raise ArgumentError(f"aggregate={aggregate!r} is not known: choose one of {', '.join(AGGREGATES)}")
    if aggregate == "local" and vectors != "latent":
        raise ArgumentError(
            "aggregate='local' weighs latent vectors by the query: pass vectors='latent' with it"
        )


class Decoder:
    """An index with the queries that it takes.

    Args:
        index: over the catalog.
        decoding: what its vectors are.
        column: last place of a query to mixed vectors; None where queries are states.
        local: the memory, for local aggregation.
    """

    def __init__(
        self,
        index: ItemIndex,
        decoding: Decoding,
        *,
        column: float | None = None,
        local: LocalLatent | None = None,
    ) -> None:
        self.index = index
        self.decoding = decoding
        self.column = column
        self.local = local
        self.live: LiveIndex | None = None
        """The catalog where items came or went since the index was built."""
        self.opened: Changes | None = None
        """What had come and gone when the index was opened."""
        self._saved: tuple[Path, str] | None = None
        self._saved_version: int | None = None

    @property
    def n_answerable(self) -> int:
        """How many items there are to be answered."""
        return self.index.n_items if self.live is None else self.live.snapshot().n_items

    def differs_from(self, folder: Path, *, built: bool) -> bool:
        """Whether what is opened from a folder would be another index, or another catalog.

        Args:
            folder: of an index.
            built: whether this index was built on demand, rather than as one is where none is saved.
        """
        here = self._saved is not None and self._saved[0] == folder
        return (built and not here) or self._version() != (self._saved_version if here else None)

    def _version(self) -> int | None:
        return None if self.live is None else self.live.snapshot().number

    def queries(self, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(b, d') what the index is asked for (b, d) states."""
        if self.column is None:
            return states
        return with_column(torch.from_numpy(states), self.column).numpy()

    def search(
        self,
        states: npt.NDArray[np.float32],
        k: int,
        *,
        exclude: tuple[Any, Any] | None = None,
        allow: Any = None,
        deny: Any = None,
        version: Version | None = None,
    ) -> NeighborArrays:
        """Find the k best items of each state; as `ItemIndex.search`.

        Args:
            states: (b, d).
            k: answers.
            exclude: as of `ItemIndex.search`.
            allow: likewise.
            deny: likewise.
            version: of the catalog, from `live`; None is what it is now.
        """
        queries = self.queries(states)
        catalog = self.live if version is None else version
        if catalog is not None:
            found = catalog.search(queries, k, exclude=exclude, allow=allow, deny=deny)
            return NeighborArrays(found.scores, found.ids)
        if self.local is None:
            return self.index.search(queries, k, exclude=exclude, allow=allow, deny=deny)
        return self.local.search(states, k, exclude=exclude, allow=allow, deny=deny)

    def changing(self) -> LiveIndex:
        """The catalog that items can be added to and removed from; begun on first use.

        Raises:
            ArgumentError: local vectors, which are made of states and belong to no item.
        """
        if self.local is not None:
            raise ArgumentError(
                "local vectors cannot take new items: build the index with aggregate='global'"
            )
        if self.live is None:
            self.live = LiveIndex(self.index)
        return self.live

    def search_groups(
        self,
        states: npt.NDArray[np.float32],
        offsets: npt.NDArray[np.int64],
        k: int,
        *,
        exclude: tuple[Any, Any] | None = None,
        allow: Any = None,
        deny: Any = None,
        version: Version | None = None,
    ) -> NeighborArrays:
        """Find the k best items of each group of states: an item scores what its best state gives it.

        Exact where the index is: an item among the k best is among the k best of its best state.

        Args:
            states: (s, d), group after group.
            offsets: (g+1,) int64; no group is empty.
            k: answers per group.
            exclude: (ids, offsets (g+1,)) per group.
            allow: ids that may be returned at all.
            deny: ids that never are.
            version: as of :meth:`search`.

        Raises:
            ArgumentError: a group is empty or the offsets do not fit.
        """
        sizes = np.diff(offsets)
        if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(states) or np.any(sizes < 1):
            raise ArgumentError(f"offsets must rise from 0 to {len(states)}, every group with a state")
        if exclude is not None:
            exclude = _repeated(exclude, sizes)
        found = self.search(states, k, exclude=exclude, allow=allow, deny=deny, version=version)
        scores = np.full((len(sizes), k), -np.inf, dtype=np.float32)
        ids = np.full((len(sizes), k), -1, dtype=np.int64)
        for size in np.unique(sizes):
            groups = np.flatnonzero(sizes == size)
            rows = offsets[groups][:, None] + np.arange(size)
            parts = [(found.scores[rows[:, i]], found.ids[rows[:, i]]) for i in range(size)]
            scores[groups], ids[groups] = merge_best(parts, k)
        return NeighborArrays(scores, ids)

    def ranking(self) -> tuple[Tensor, float | None]:
        """Vectors and column whose inner products order the catalog as this decoder does, unless it is local.

        Returns:
            (V, d') float32 and the queries' last place, None where queries are states.
        """
        vectors = self.index.vectors
        if self.index.metric != "l2":
            return vectors, self.column
        # -|q - v|^2 orders as 2 q.v - |v|^2; the last place is as long as the vectors, for float32's sake.
        wide = vectors.double()
        squares = wide.square().sum(dim=1, keepdim=True)
        column = float(squares.mean().sqrt().clamp_min(1e-6))
        return torch.cat([2 * wide, -squares / column], dim=1).float(), column

    def save(self, folder: str | Path, states: Tensor | None = None, changes: Changes | None = None) -> None:
        """Write the index, with the memory of a local decoder in it, and what came and went since.

        Args:
            folder: where.
            states: (s, d) user states for golden queries.
            changes: of `live`, items named by their maker.
        """
        queries = None if states is None else torch.from_numpy(self.queries(states.numpy()))
        version = self._version()
        self._saved = Path(folder).absolute(), save_index(self.index, folder, queries, changes)
        self._saved_version = version

    def save_changes(self, changes: Changes) -> Path:
        """Write what came and went beside the index, where it was opened or saved; nothing else is written.

        Returns:
            The folder.

        Raises:
            ArgumentError: the index lies nowhere yet.
            RetrievalError: another process wrote there in between, or nobody can.
        """
        if self._saved is None:
            raise ArgumentError("this index was neither opened nor saved: there is no folder to change")
        folder, state = self._saved
        version = self._version()
        self._saved = folder, amend_live(folder, state, changes)
        self._saved_version = version
        return folder

    @classmethod
    def load(
        cls, folder: str | Path, fingerprint: str, vocabulary: str, *, kind: str | None = None
    ) -> "Decoder":
        """Open what `save` wrote.

        Raises:
            RetrievalError: as `ItemIndex.load`, or the memory is not that of the index.
        """
        index, changes, state = load_index(ItemIndex, folder, fingerprint, vocabulary, kind)
        notes = dict(index.notes)
        column = notes.pop("column", None)
        try:
            decoding = Decoding(**notes)
            local = local_of(index, decoding.neighbours) if decoding.aggregate == "local" else None
        except TypeError:
            raise RetrievalError(
                f"{folder}: made by another version of recsys; build the index again"
            ) from None
        except KeyError:
            raise RetrievalError(f"{folder}: the index's memory is missing; build the index again") from None
        decoder = cls(index, decoding, column=column, local=local)
        decoder._saved = Path(folder).absolute(), state
        if changes is not None:
            decoder.opened, decoder.live = changes, LiveIndex(index, changes=changes)
        decoder._saved_version = decoder._version()
        return decoder


def local_of(index: ItemIndex, neighbours: int) -> LocalLatent:
    """The local decoder whose memory an index carries in `extra`: "states" (M, d) and "items" (M,).

    Raises:
        KeyError: the index carries none.
    """
    states, items = index.extra["states"], index.extra["items"].numpy()
    memory = datastore_index(states)
    index.extra["states"] = memory.vectors  # the same numbers, held once
    return LocalLatent(memory, items, index, neighbours)


def datastore_index(states: Tensor) -> ItemIndex:
    """An index over (M, d) states, scanned exactly.

    A graph would have to be built whenever the index is opened, and thousands of neighbours are asked for. Of
    the scans, the ranking kernel's is the fastest.
    """
    return ItemIndex.build(states, kind="exact", metric="l2", fingerprint="")


def _repeated(exclude: tuple[Any, Any], sizes: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    """Exclusions of groups as those of their members."""
    ids, offsets = np.asarray(exclude[0], dtype=np.int64), np.asarray(exclude[1], dtype=np.int64)
    if len(offsets) != len(sizes) + 1:
        raise ArgumentError(f"exclude offsets must be {len(sizes) + 1} numbers, one row per group")
    owner = np.repeat(np.arange(len(sizes)), sizes)
    parts = [ids[offsets[group] : offsets[group + 1]] for group in owner]
    return np.concatenate(parts or [ids[:0]]), np.cumsum([0, *map(len, parts)]).astype(np.int64)
