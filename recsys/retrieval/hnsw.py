"""The `hnsw` kind: FAISS's navigable small-world graph (Malkov and Yashunin 2016, arXiv:1603.09320).

Inner products are searched directly: turning them into distances by one more column destroys recall where
vectors' lengths differ (0.145 against 0.956 of the 20 best).

The graph is saved as plain integer arrays, checked when it is opened, and never in FAISS's own format.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import RetrievalError
from recsys.retrieval.approximate import ApproximateBackend
from recsys.retrieval.backends import Parts
from recsys.retrieval.faiss_library import load_faiss, searching
from recsys.retrieval.faiss_proposer import over_flat
from recsys.retrieval.filters import Ints
from recsys.retrieval.flat import FlatBackend
from recsys.retrieval.metric import Floats32, Metric
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import GRAPH_SHARE, Engine


class GraphProposer:
    """A filled IndexHNSWFlat."""

    def __init__(self, faiss: Any, index: Any, ef_search: int) -> None:
        self._faiss = faiss
        self._index = index
        self._ef_search = ef_search
        # Making them takes a fifth of the time of a fast search; no search changes them.
        self._usual = faiss.SearchParametersHNSW(efSearch=ef_search)
        self.engine = Engine(exact=False, selectors=True, selector_share=GRAPH_SHARE, deepest=index.ntotal)

    def find(self, queries: Floats32, count: int, selector: Any) -> Ints:
        """Walk the graph, keeping as many candidates as answers are wanted, and at least ef_search."""
        ef = max(self._ef_search, count)
        if selector is not None:
            parameters = self._faiss.SearchParametersHNSW(efSearch=ef, sel=selector)
        elif ef == self._ef_search:
            parameters = self._usual
        else:
            parameters = self._faiss.SearchParametersHNSW(efSearch=ef)
        _, ids = self._index.search(np.ascontiguousarray(queries), count, params=parameters)
        return ids  # type: ignore[no-any-return]

    def parts(self) -> dict[str, Tensor]:
        """The graph: the top layer of each item, where its links start, the links, and the entry."""
        graph = self._index.hnsw
        array = self._faiss.vector_to_array
        return {
            "levels": torch.from_numpy(array(graph.levels).copy()),
            "offsets": torch.from_numpy(array(graph.offsets).astype(np.int64)),
            "links": torch.from_numpy(array(graph.neighbors).copy()),
            "entry": torch.tensor([graph.entry_point, graph.max_level], dtype=torch.int64),
        }


def build(
    vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None
) -> ApproximateBackend:
    """Build the graph over a copy of the vectors, or take a saved one.

    Raises:
        RetrievalError: the saved graph is not one over these vectors.
    """
    faiss = load_faiss()
    array: Floats32 = vectors.cpu().numpy()
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexHNSWFlat(array.shape[1], options.hnsw_m, measure)
    index.hnsw.efConstruction = options.ef_construction
    storage = faiss.downcast_index(index.storage)
    if parts is None:
        with searching(faiss, options.threads):
            index.add(np.ascontiguousarray(array))
    else:
        _restore(faiss, index, storage, array, parts)
    flat = FlatBackend(storage, metric, options)
    flat.owner = index  # the storage lives as long as the graph
    return over_flat(flat, GraphProposer(faiss, index, options.ef_search), metric, options)


def _restore(faiss: Any, index: Any, storage: Any, vectors: Floats32, parts: Parts) -> None:
    """Put a saved graph into an empty index, once sure that no link leads out of it."""
    graph = index.hnsw
    levels, offsets, links = (np.ascontiguousarray(parts[n].numpy()) for n in ("levels", "offsets", "links"))
    entry, top = (int(value) for value in parts["entry"])
    per_level = faiss.vector_to_array(graph.cum_nneighbor_per_level)
    n = len(vectors)
    sound = len(levels) == n and len(offsets) == n + 1 and 0 <= entry < n
    sound = (
        sound and int(levels.min()) >= 1 and int(levels.max()) < len(per_level) and top == levels.max() - 1
    )
    if sound:
        # An item's links take the room of its layers, one item after the other.
        room = np.concatenate(([0], np.cumsum(per_level[levels].astype(np.int64))))
        sound = bool(np.array_equal(offsets, room)) and len(links) == room[-1]
    if not sound or int(links.min(initial=-1)) < -1 or int(links.max(initial=-1)) >= n:
        raise RetrievalError("the saved graph does not fit its vectors and options: build the index again")
    storage.add(np.ascontiguousarray(vectors))
    index.ntotal = n
    faiss.copy_array_to_vector(levels.astype(np.int32), graph.levels)
    faiss.copy_array_to_vector(offsets.astype(np.uint64), graph.offsets)
    faiss.copy_array_to_vector(links.astype(np.int32), graph.neighbors)
    graph.entry_point, graph.max_level = entry, top
