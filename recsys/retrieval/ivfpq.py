"""The `ivfpq` kind: inverted lists of 4-bit product-quantized codes, compared by FAISS's fast scan.

Codes take V * d / 4 bytes beside the vectors, which stay in memory to score the proposed items. Sources:
Andre, Kermarrec and Le Scouarnec 2015 (fast scan); Jegou, Douze and Schmid 2011 (product quantization).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import ArgumentError, RetrievalError
from recsys.retrieval.approximate import ApproximateBackend
from recsys.retrieval.backends import Parts
from recsys.retrieval.faiss_library import load_faiss, searching
from recsys.retrieval.faiss_proposer import over_flat
from recsys.retrieval.flat import FlatBackend, flat_index
from recsys.retrieval.ivf import ListsProposer, check_lists, empty_lists, fill, train
from recsys.retrieval.metric import Floats32, Metric
from recsys.retrieval.options import IndexOptions

_BITS = 4
_CODES = 2**_BITS
_COLUMNS_PER_CODE = 2


def build(
    vectors: Tensor, metric: Metric, options: IndexOptions, parts: Parts | None = None
) -> ApproximateBackend:
    """Train centres and codes over a copy of the vectors, or take saved ones.

    Raises:
        ArgumentError: fewer than 16 vectors, from which 16 codes cannot be learned.
        RetrievalError: the saved lists are not of these vectors.
    """
    faiss = load_faiss()
    array: Floats32 = vectors.cpu().numpy()
    if len(array) < _CODES:
        raise ArgumentError(f"kind='ivfpq' learns {_CODES} codes from {len(array)} vectors: use kind='flat'")
    padding = array.shape[1] % _COLUMNS_PER_CODE
    padded = np.ascontiguousarray(np.pad(array, ((0, 0), (0, padding))))
    saved = dict(parts) if parts is not None else train(faiss, padded, metric, options)
    nlist = check_lists(saved, padded)
    index, owner = _empty_codes(faiss, saved, padded.shape[1], metric)
    codes = index.pq.M * _CODES * _COLUMNS_PER_CODE
    if "codes" not in saved:
        with searching(faiss, options.threads):
            index.train(padded)
        saved["codes"] = torch.from_numpy(faiss.vector_to_array(index.pq.centroids).copy())
    if saved["codes"].shape != (codes,) or not bool(torch.isfinite(saved["codes"]).all()):
        raise RetrievalError("the saved codes do not fit their vectors: build the index again")
    faiss.copy_array_to_vector(np.ascontiguousarray(saved["codes"].numpy()), index.pq.centroids)
    index.is_trained = True
    fast = faiss.IndexIVFPQFastScan(fill(faiss, index, padded, saved))
    flat = FlatBackend(flat_index(faiss, array, metric), metric, options)
    proposer = ListsProposer(
        faiss, fast, options.probes(nlist), saved, refine=options.refine, padding=padding
    )
    proposer.owner = index, owner
    return over_flat(flat, proposer, metric, options)


def _empty_codes(faiss: Any, saved: Parts, width: int, metric: Metric) -> tuple[Any, Any]:
    """An empty index of codes, and the owner of its centres."""
    lists = empty_lists(faiss, saved, metric)
    index = faiss.IndexIVFPQ(
        lists.quantizer, width, lists.nlist, width // _COLUMNS_PER_CODE, _BITS, lists.metric_type
    )
    index.cp.min_points_per_centroid = 1
    index.pq.cp.min_points_per_centroid = 1
    return index, lists
