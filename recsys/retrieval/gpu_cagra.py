"""The `gpu-cagra` kind: cuVS's graph on a GPU (Ootomo et al. 2023, arXiv:2308.15136), with faiss-gpu-cuvs.

The graph is built anew whenever the index is opened, which takes seconds per million items there.
"""

import threading
from typing import Any

import numpy as np
from torch import Tensor

from recsys.errors import MissingDependencyError
from recsys.retrieval.approximate import ApproximateBackend
from recsys.retrieval.backends import Parts
from recsys.retrieval.faiss_proposer import over_flat
from recsys.retrieval.filters import Ints
from recsys.retrieval.flat import FlatBackend, flat_index
from recsys.retrieval.gpu_library import CUVS_DEEPEST, has_cuvs, load_gpu_faiss
from recsys.retrieval.metric import Floats32, Metric
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import Engine

# cuVS's documentation: fine while few items are filtered out; brute force where more than half are.
_SELECTOR_SHARE = 0.5


class CagraProposer:
    """A GpuIndexCagra; one thread at a time."""

    def __init__(self, faiss: Any, index: Any, resources: Any, ef_search: int) -> None:
        self._faiss = faiss
        self._index = index
        self._resources = resources
        self._ef_search = ef_search
        self._lock = threading.Lock()
        self.engine = Engine(
            exact=False, selectors=True, selector_share=_SELECTOR_SHARE, deepest=CUVS_DEEPEST
        )

    def find(self, queries: Floats32, count: int, selector: Any) -> Ints:
        """Walk the graph, keeping as many candidates as answers are wanted, and at least ef_search."""
        parameters = self._faiss.SearchParametersCagra()
        parameters.itopk_size = max(self._ef_search, count)
        if selector is not None:
            parameters.sel = selector
        with self._lock:
            _, ids = self._index.search(np.ascontiguousarray(queries), count, params=parameters)
        return ids  # type: ignore[no-any-return]

    def parts(self) -> dict[str, Tensor]:
        """Nothing beside the vectors."""
        return {}


def build(
    vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None
) -> ApproximateBackend:
    """Build the graph over a copy of the vectors.

    Raises:
        MissingDependencyError: faiss-gpu-cuvs or a GPU is missing.
    """
    faiss = load_gpu_faiss()
    if not has_cuvs(faiss):
        raise MissingDependencyError(
            "kind='gpu-cagra' needs the cuVS build: pip uninstall faiss-gpu, then pip install "
            "'recsys-engine[faiss-cuvs]'"
        )
    array: Floats32 = vectors.cpu().numpy()
    resources = faiss.StandardGpuResources()
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.GpuIndexCagra(resources, array.shape[1], measure, faiss.GpuIndexCagraConfig())
    index.train(np.ascontiguousarray(array))
    flat = FlatBackend(flat_index(faiss, array, metric), metric, options)
    return over_flat(flat, CagraProposer(faiss, index, resources, options.ef_search), metric, options)
