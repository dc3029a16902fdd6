"""The `gpu-ivf` kind: inverted lists built on the CPU, searched on a GPU."""

import threading
from typing import Any

import numpy as np
from torch import Tensor

from recsys.retrieval.approximate import ApproximateBackend
from recsys.retrieval.backends import Parts
from recsys.retrieval.faiss_proposer import over_flat
from recsys.retrieval.filters import Ints
from recsys.retrieval.flat import FlatBackend, flat_index
from recsys.retrieval.gpu_library import (
    MOST_PROBES,
    deepest,
    has_cuvs,
    load_gpu_faiss,
    refuse_selector,
    to_gpu,
)
from recsys.retrieval.ivf import check_lists, empty_lists, fill, train
from recsys.retrieval.metric import Floats32, Metric
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import Engine


class GpuListsProposer:
    """Inverted lists on a GPU; one thread at a time."""

    def __init__(self, faiss: Any, index: Any, resources: Any, nprobe: int, saved: dict[str, Tensor]) -> None:
        self._faiss = faiss
        self._index = index
        self._resources = resources
        self._nprobe = min(nprobe, MOST_PROBES)
        self._saved = saved
        self._lock = threading.Lock()
        self.engine = Engine(
            exact=False, selectors=has_cuvs(faiss), selector_share=0.0, deepest=deepest(faiss)
        )

    def find(self, queries: Floats32, count: int, selector: Any) -> Ints:
        """Look into the nearest lists."""
        refuse_selector(self._faiss, selector)
        parameters = self._faiss.SearchParametersIVF(nprobe=self._nprobe, sel=selector)
        with self._lock:
            _, ids = self._index.search(np.ascontiguousarray(queries), count, params=parameters)
        return ids  # type: ignore[no-any-return]

    def parts(self) -> dict[str, Tensor]:
        """The centres, and the list of each item."""
        return self._saved


def build(
    vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None
) -> ApproximateBackend:
    """Train centres and file a copy of the vectors, or take saved ones, and copy the lists to the GPU.

    Raises:
        MissingDependencyError: FAISS's GPU build or a GPU is missing.
        RetrievalError: the saved lists are not of these vectors.
    """
    faiss = load_gpu_faiss()
    array: Floats32 = vectors.cpu().numpy()
    saved = dict(parts) if parts is not None else train(faiss, array, metric, options)
    nlist = check_lists(saved, array)
    copy, resources = to_gpu(faiss, fill(faiss, empty_lists(faiss, saved, metric), array, saved))
    flat = FlatBackend(flat_index(faiss, array, metric), metric, options)
    proposer = GpuListsProposer(faiss, copy, resources, options.probes(nlist), saved)
    return over_flat(flat, proposer, metric, options)
