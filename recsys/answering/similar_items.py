"""Items near to items, among those that may be answered now."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from recsys.answering.arguments import check_room, whole_number
from recsys.answering.names import Names
from recsys.answering.queries import Array, encode_denied, encode_items
from recsys.decoding.decoder import Decoder
from recsys.errors import ArgumentError
from recsys.retrieval.item_index import ItemIndex
from recsys.retrieval.live import Version
from recsys.retrieval.metric import Floats32

if TYPE_CHECKING:
    import polars


class SimilarItems:
    """Nearest items by cosine, over the catalog as it is when asked.

    The log's items are compared by their embeddings. An item added since is compared by the vector that it
    was given, if the index's vectors are embeddings, too; among others it has no place. What was removed is
    in no answer; items of the log may be asked for all the same.

    Args:
        weight: (V, D) float32 item vectors of the encoder.
        decoder: whose items came and went.
    """

    def __init__(self, weight: Tensor, decoder: Decoder) -> None:
        self.decoder = decoder
        self._weight = weight.numpy()
        self._made: tuple[Version | None, ItemIndex, Array] | None = None

    def search(
        self,
        names: Names,
        items: Iterable[Any],
        k: int,
        *,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
    ) -> "polars.DataFrame":
        """Find neighbours, the item itself left out; arguments as of `Recommender.similar_items`.

        Returns:
            Columns item_id, similar_item_id, score, rank, and title where there are titles.
        """
        import polars as pl

        asked = encode_items(items, names.answerable, "raise", "items", choice=False)
        assert asked is not None
        version, index, ids = self._catalog()
        k = min(whole_number(k, "k"), index.n_items)
        check_room(len(asked), k)
        filters = {
            "allow": encode_items(allow, names.answerable, "raise", "allow", choice=False),
            "deny": encode_denied(deny, names.answerable, "raise"),
        }
        rows = {name: None if found is None else _rows_of(ids, found) for name, found in filters.items()}
        own = np.searchsorted(ids, asked)
        there = ids[np.minimum(own, len(ids) - 1)] == asked
        itself = own[there], np.concatenate(([0], np.cumsum(there))).astype(np.int64)
        found = index.search(self._vectors(asked, version), k, exclude=itself, **rows)
        request, place = np.nonzero(found.ids >= 0)
        neighbours = ids[found.ids[request, place]]
        columns: dict[str, Any] = {
            "item_id": names.answerable.decode(asked[request]),
            "similar_item_id": names.answerable.decode(neighbours).alias("similar_item_id"),
            "score": found.scores[request, place],
            "rank": (place + 1).astype(np.int32),
        }
        titles = names.titles_of(neighbours)
        if titles is not None:
            columns["title"] = titles
        return pl.DataFrame(columns)

    def _catalog(self) -> tuple[Version | None, ItemIndex, Array]:
        """What may be answered now, an index over it, and the ascending item of each of its rows."""
        live = self.decoder.live
        version = None if live is None else live.snapshot()
        made = self._made
        if made is None or made[0] is not version:
            ids = np.arange(len(self._weight), dtype=np.int64)
            if version is not None:
                ids = version.ids if self._of_embeddings else np.intersect1d(ids, version.ids)
            vectors = self._vectors(ids, version)
            index = ItemIndex.build(vectors, kind="exact", metric="cosine", fingerprint="")
            made = self._made = version, index, ids
        return made

    @property
    def _of_embeddings(self) -> bool:
        return self.decoder.decoding.vectors == "embedding"

    def _vectors(self, ids: Array, version: Version | None) -> Floats32:
        """(n, D) float32 vectors of items; those that were replaced have the new one."""
        size = len(self._weight)
        vectors: Floats32 = self._weight[np.minimum(ids, size - 1)]
        if version is None:
            return vectors
        given = np.isin(ids, version.added_ids) & self._of_embeddings
        if given.any():
            vectors[given] = version.vectors(ids[given])
        if bool((~given & (ids >= size)).any()):
            raise ArgumentError(
                "items: one was added to an index of latent vectors, or removed again: it has no embedding; "
                "ask for items of the log"
            )
        return vectors


def _rows_of(ids: Array, wanted: Array) -> Array:
    """Rows of those of some items that are there."""
    return np.flatnonzero(np.isin(ids, wanted))
