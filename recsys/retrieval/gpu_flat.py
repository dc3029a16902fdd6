"""The `gpu-flat` kind: exact scans on a GPU by over-fetching; short allow-lists are left to the CPU."""

from torch import Tensor

from recsys.retrieval.backends import Parts
from recsys.retrieval.flat import FlatBackend, flat_index
from recsys.retrieval.gpu_library import deepest, load_gpu_faiss, to_gpu
from recsys.retrieval.metric import Metric
from recsys.retrieval.options import IndexOptions


def build(vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None) -> FlatBackend:
    """Build the backend over a copy of the vectors.

    Raises:
        MissingDependencyError: FAISS's GPU build or a GPU is missing.
    """
    faiss = load_gpu_faiss()
    index = flat_index(faiss, vectors.cpu().numpy(), metric)
    copy, resources = to_gpu(faiss, index)
    backend = FlatBackend(index, metric, options, device_index=copy, deepest=deepest(faiss))
    backend.owner = resources
    return backend
