"""The `ivf` kind: FAISS's inverted lists of whole vectors (IndexIVFFlat).

Vectors are filed under the nearest of nlist centres; a query looks into the nprobe nearest lists. On inner
products with skewed lengths few lists find little (0.24 of the 20 best at 8 lists): prefer `hnsw` there.
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
from recsys.retrieval.flat import FlatBackend, flat_index
from recsys.retrieval.metric import Floats32, Metric
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import Engine


class ListsProposer:
    """Filled inverted lists.

    Args:
        faiss: the library.
        index: an IndexIVF.
        nprobe: lists visited per query.
        saved: what `parts` gives.
        refine: items fetched per item wanted, for lists of codes.
        padding: zero columns that the index has past the vectors' own.
    """

    owner: Any = None
    """Whatever must live as long as the lists."""

    def __init__(
        self,
        faiss: Any,
        index: Any,
        nprobe: int,
        saved: dict[str, Tensor],
        *,
        refine: int = 1,
        padding: int = 0,
    ) -> None:
        self._faiss = faiss
        self._index = index
        self._nprobe = nprobe
        self._saved = saved
        self._refine = refine
        self._padding = padding
        # Lists hold items in no order of their own: a selector costs a look per item, whatever its share.
        self.engine = Engine(exact=False, selectors=True, selector_share=0.0, deepest=index.ntotal)

    def find(self, queries: Floats32, count: int, selector: Any) -> Ints:
        """Look into the nearest lists."""
        asked = np.ascontiguousarray(np.pad(queries, ((0, 0), (0, self._padding))))
        parameters = self._faiss.SearchParametersIVF(nprobe=self._nprobe, sel=selector)
        fetched = min(self._index.ntotal, count * self._refine)
        _, ids = self._index.search(asked, fetched, params=parameters)
        return ids  # type: ignore[no-any-return]

    def parts(self) -> dict[str, Tensor]:
        """The centres, and the list of each item."""
        return self._saved


def build(
    vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None
) -> ApproximateBackend:
    """Train centres and file a copy of the vectors, or take saved centres and lists.

    Raises:
        RetrievalError: the saved lists are not of these vectors.
    """
    faiss = load_faiss()
    array: Floats32 = vectors.cpu().numpy()
    saved = dict(parts) if parts is not None else train(faiss, array, metric, options)
    nlist = check_lists(saved, array)
    index = fill(faiss, empty_lists(faiss, saved, metric), array, saved)
    flat = FlatBackend(flat_index(faiss, array, metric), metric, options)
    proposer = ListsProposer(faiss, index, options.probes(nlist), saved)
    return over_flat(flat, proposer, metric, options)


def train(faiss: Any, vectors: Floats32, metric: Metric, options: IndexOptions) -> dict[str, Tensor]:
    """Find centres and the nearest of each vector: "centres" (nlist, d) float32, "lists" (V,) int32."""
    width = vectors.shape[1]
    nlist = options.lists(len(vectors))
    quantizer = _quantizer(faiss, width, metric)
    index = faiss.IndexIVFFlat(quantizer, width, nlist, _measure(faiss, metric))
    index.cp.seed = options.seed + 1234  # FAISS's default seed, moved by ours
    index.cp.min_points_per_centroid = 1  # a catalog that small gets one list and needs no warning
    with searching(faiss, options.threads):
        index.train(np.ascontiguousarray(vectors))
        _, nearest = quantizer.search(np.ascontiguousarray(vectors), 1)
    centres = quantizer.reconstruct_n(0, nlist)
    return {
        "centres": torch.from_numpy(np.ascontiguousarray(centres)),
        "lists": torch.from_numpy(nearest[:, 0].astype(np.int32)),
    }


def check_lists(saved: Parts, vectors: Floats32) -> int:
    """Refuse centres or list numbers that are not of these vectors; return the number of lists.

    Raises:
        RetrievalError: see above.
    """
    centres, lists = saved["centres"], saved["lists"]
    nlist = len(centres)
    sound = nlist >= 1 and centres.shape[1:] == vectors.shape[1:] and len(lists) == len(vectors)
    if not sound or int(lists.min()) < 0 or int(lists.max()) >= nlist:
        raise RetrievalError("the saved lists do not fit their vectors: build the index again")
    return nlist


def empty_lists(faiss: Any, saved: Parts, metric: Metric) -> Any:
    """An IndexIVFFlat with saved centres and empty lists."""
    centres = np.ascontiguousarray(saved["centres"].numpy())
    quantizer = _quantizer(faiss, centres.shape[1], metric)
    quantizer.add(centres)
    index = faiss.IndexIVFFlat(quantizer, centres.shape[1], len(centres), _measure(faiss, metric))
    index.is_trained = True
    return index


def fill(faiss: Any, index: Any, vectors: Floats32, saved: Parts) -> Any:
    """File vectors under the lists that they are known to belong to, without searching for them again."""
    stored = np.ascontiguousarray(vectors)
    ids = np.arange(len(vectors), dtype=np.int64)
    lists = np.ascontiguousarray(saved["lists"].numpy().astype(np.int64))
    index.add_core(len(vectors), faiss.swig_ptr(stored), faiss.swig_ptr(ids), faiss.swig_ptr(lists))
    return index


def _quantizer(faiss: Any, width: int, metric: Metric) -> Any:
    return faiss.IndexFlatL2(width) if metric == "l2" else faiss.IndexFlatIP(width)


def _measure(faiss: Any, metric: Metric) -> int:
    return int(faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
