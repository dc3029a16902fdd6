"""Local aggregation of L2D: an item's vector is made of the states nearest to the query.

Of the M states nearest to a query, those of one item give its vector, weighted by their similarity 1 / |q -
h| (the paper's); the item scores minus the squared distance of the query to it. Items without a state among
the M have no local vector: they come after all that have, in the order of the global index.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.kernels.local_aggregation import local_scores
from recsys.retrieval.filters import Filters, Ints, merge_filters
from recsys.retrieval.item_index import ItemIndex, NeighborArrays
from recsys.retrieval.metric import Floats32


class LocalLatent:
    """A memory index and the global index behind it.

    Args:
        memory: an L2 index over (M, d) states.
        items: (M,) int64, the item that followed each state.
        behind: an index over the catalog that orders the items without a local vector.
        neighbours: states that make the local vectors.

    Raises:
        ArgumentError: the memory is not an L2 index with one item per state, or neighbours < 1.
    """

    def __init__(self, memory: ItemIndex, items: Ints, behind: ItemIndex, neighbours: int) -> None:
        if memory.metric != "l2" or len(items) != memory.n_items:
            raise ArgumentError("memory must be an l2 index with one item per state")
        if neighbours < 1:
            raise ArgumentError(f"neighbours={neighbours} must be at least 1")
        self.memory = memory
        self.items = np.asarray(items, dtype=np.int64)
        self._states = memory.vectors.cpu().numpy()
        self.behind = behind
        self.neighbours = neighbours

    def score(self, queries: NDArray[np.floating[Any]]) -> tuple[Floats32, Ints]:
        """Scores of the items that have a local vector.

        Args:
            queries: (b, d).

        Returns:
            (b, m) float32 minus squared distances and int64 items, each once per row; -inf and -1 fill up.
        """
        return self.score_near(queries, self.nearest(queries, self.neighbours))

    def nearest(self, queries: NDArray[np.floating[Any]], count: int) -> NeighborArrays:
        """Find the states nearest to each query; the first of them are what a lesser count finds.

        Args:
            queries: (b, d).
            count: states per query; all of them if there are fewer.
        """
        return self.memory.search(queries, min(count, self.memory.n_items))

    def score_near(self, queries: NDArray[np.floating[Any]], near: NeighborArrays) -> tuple[Floats32, Ints]:
        """As `score`, by any number of nearest states that were found before.

        Args:
            queries: (b, d).
            near: (b, m) what `nearest` found, or the first of it.
        """
        asked = np.asarray(queries, dtype=np.float32)
        return local_scores(asked, self._states, self.items, near.ids, near.scores)

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: tuple[Any, Any] | None = None,
        allow: Any = None,
        deny: Any = None,
    ) -> NeighborArrays:
        """Find the k best items of each query; filters as in `ItemIndex.search`.

        Args:
            queries: (b, d) states.
            k: answers per query.
            exclude: (ids, offsets).
            allow: ids that may be returned at all.
            deny: ids that never are.

        Returns:
            Scores and ids; items of the index behind score at most what the last local item does.
        """
        filters = merge_filters(self.behind.n_items, len(queries), exclude, allow, deny)
        scores, ids = self._local(queries, k, filters)
        found = (ids >= 0).sum(axis=1, keepdims=True)
        if bool((found == k).all()):
            return NeighborArrays(scores, ids)
        rest = self.behind.search(
            queries,
            k,
            exclude=_joined(filters, ids),
            allow=filters.candidates,
        )
        lowest = np.take_along_axis(scores, np.maximum(found - 1, 0), axis=1)
        lowest = np.where(found > 0, lowest, np.float32(np.inf))
        places = np.arange(k) - found
        later, source = places >= 0, np.maximum(places, 0)
        scores = np.where(later, np.minimum(np.take_along_axis(rest.scores, source, axis=1), lowest), scores)
        ids = np.where(later, np.take_along_axis(rest.ids, source, axis=1), ids)
        return NeighborArrays(scores, ids)

    def _local(self, queries: NDArray[np.floating[Any]], k: int, filters: Filters) -> tuple[Floats32, Ints]:
        scores, items = self.score(queries)
        permitted = filters.permits(items)
        scores = np.where(permitted, scores, np.float32(-np.inf))
        items = np.where(permitted, items, -1)
        if items.shape[1] < k:
            gap = ((0, 0), (0, k - items.shape[1]))
            scores = np.pad(scores, gap, constant_values=-np.inf)
            items = np.pad(items, gap, constant_values=-1)
        order = np.lexsort((np.where(items < 0, np.iinfo(np.int64).max, items), -scores), axis=-1)[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(items, order, axis=1)


def _joined(filters: Filters, found: Ints) -> tuple[Ints, Ints]:
    """The filters' exclusions and the items found, row by row."""
    taken = found >= 0
    rows = np.concatenate(
        [np.repeat(np.arange(filters.n_rows), np.diff(filters.offsets)), np.nonzero(taken)[0]]
    )
    ids = np.concatenate([filters.ids, found[taken]])
    order = np.argsort(rows, kind="stable")
    offsets = np.searchsorted(rows[order], np.arange(filters.n_rows + 1)).astype(np.int64)
    return ids[order], offsets
