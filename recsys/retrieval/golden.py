"""Golden queries: a few questions with known answers, asked again whenever a saved index is opened.

Checksums show that the bytes are right; these show that the library that reads them here computes right, too.
"""

import numpy as np
import torch
from torch import Tensor

from recsys.errors import RetrievalError
from recsys.retrieval.backends import SearchBackend
from recsys.retrieval.filters import merge_filters

QUERIES = 16
ANSWERS = 10
_TOLERANCE = 1e-4
"""Of the greatest score: libraries round differently, wrong ones are wrong by more."""
_LOST_RECALL = 0.1
"""An approximate index may find so much less than when it was built: rounding can move a graph's walk."""


def golden_queries(vectors: Tensor, states: Tensor | None) -> Tensor:
    """(g, d) queries: some of the given user states, or item vectors, evenly spaced."""
    source = vectors if states is None or len(states) == 0 else states
    places = np.unique(np.linspace(0, len(source) - 1, QUERIES).astype(np.int64))
    return source[torch.from_numpy(places).to(source.device)].float().cpu().contiguous()


def golden_answers(backend: SearchBackend, queries: Tensor) -> tuple[dict[str, Tensor], float]:
    """The true answers to golden queries, and the share of them that the index finds.

    Returns:
        {"queries": (g, d), "scores": (g, k), "ids": (g, k)} and the recall.
    """
    n_items = backend.shape[0]
    filters = merge_filters(n_items, len(queries))
    k = min(ANSWERS, n_items)
    scores, ids = backend.search_exactly(queries, k, filters)
    golden = {"queries": queries, "scores": scores.cpu(), "ids": ids.cpu()}
    return golden, measure_recall(backend, queries, golden["scores"])


def measure_recall(backend: SearchBackend, queries: Tensor, truth: Tensor) -> float:
    """The share of the true answers to some queries that a search finds; 1 for an exact kind.

    Args:
        backend: what is searched.
        queries: (b, d).
        truth: (b, k) scores of the true answers, best first.
    """
    if backend.exact:
        return 1.0
    found, _ = backend.search(queries, truth.shape[1], merge_filters(backend.shape[0], len(queries)))
    return _recall(found.cpu(), truth)


def check_golden(backend: SearchBackend, golden: dict[str, Tensor], least_recall: float) -> None:
    """Ask the golden queries again.

    Args:
        backend: a freshly opened index.
        golden: from `golden_answers`.
        least_recall: recall when it was built; 0 does not compare.

    Raises:
        RetrievalError: an exact index gives other scores, or an approximate one finds much less.
    """
    queries, truth = golden["queries"], golden["scores"]
    found, _ = backend.search(queries, truth.shape[1], merge_filters(backend.shape[0], len(queries)))
    scores = found.cpu()
    if backend.exact:
        slack = _TOLERANCE * max(float(truth.abs().max()), 1e-30)
        if not bool(((scores - truth).abs() <= slack).all()):
            raise RetrievalError(
                "the index does not give its golden queries their answers: FAISS or the processor computes "
                "wrongly here; try kind='exact', or build the index again"
            )
    elif _recall(scores, truth) < least_recall - _LOST_RECALL:
        raise RetrievalError(
            f"the index finds {_recall(scores, truth):.2f} of its golden queries' best items where it found "
            f"{least_recall:.2f} when it was built; build the index again"
        )


def _recall(scores: Tensor, truth: Tensor) -> float:
    """Share of answers as good as the truth's last one: among ties any item is right."""
    slack = _TOLERANCE * max(float(truth.abs().max()), 1e-30)
    return float((scores >= truth[:, -1:] - slack).double().mean())
