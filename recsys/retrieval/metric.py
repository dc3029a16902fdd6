"""The metrics of an index, scored so that bigger is better, and the final ordering of proposed items.

- inner_product: q . v
- l2: -|q - v|^2
- cosine: q . v of normalized copies; a zero vector has similarity 0 to everything
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.retrieval.filters import Filters, Ints

Metric = Literal["inner_product", "l2", "cosine"]
METRICS: tuple[str, ...] = get_args(Metric)
Floats32 = NDArray[np.float32]

# Float64 numbers gathered at once when items are scored again: 32 MB.
_GATHER_AT_ONCE = 4_000_000


class Proposals(NamedTuple):
    """What a float32 scan of the catalog found for some queries, before the exact ordering."""

    ids: Ints
    """(b, m) permitted items, -1 where there was none."""

    floor: NDArray[np.float64]
    """(b,) no item that was not proposed had a greater float32 score; -inf if all were proposed."""


def normalized(vectors: Floats32) -> Floats32:
    """Return a copy with rows of length 1; zero rows stay zero."""
    lengths = np.sqrt(np.einsum("vd,vd->v", vectors, vectors, dtype=np.float64))
    scaled: Floats32 = (vectors / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32)
    return scaled


def longest(vectors: Floats32) -> float:
    """Greatest Euclidean length of a row."""
    return float(np.sqrt(np.einsum("vd,vd->v", vectors, vectors, dtype=np.float64).max(initial=0.0)))


def rounding_margins(queries: Floats32, longest_item: float, metric: Metric) -> NDArray[np.float64]:
    """Bound how far a float32 score of any item can lie from the true one, for each query.

    A float32 sum of d products, in any order, is off by at most about d * 2^-24 * |q| |v| (Higham 2002,
    section 3.1); doubled, and for l2 with (|q| + |v|)^2 as the size of the terms.

    Raises:
        ArgumentError: a score could leave the range of float32.
    """
    lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))
    size = (lengths + longest_item) ** 2 if metric == "l2" else lengths * longest_item
    if size.max(initial=0.0) > 1e38:
        raise ArgumentError("a query or item vector is so long that scores overflow float32: scale them down")
    margins: NDArray[np.float64] = (queries.shape[1] + 4) * 2.0**-23 * size
    return margins


def order_exactly(
    queries: Floats32,
    vectors: Floats32,
    proposals: Proposals,
    k: int,
    *,
    metric: Metric,
    margins: NDArray[np.float64],
    filters: Filters,
    rows: Ints,
) -> tuple[Floats32, Ints]:
    """Score proposed items in float64 and order them by (score descending, id ascending).

    The float32 scan only proposes: its last bits depend on the shape of the product, so equal vectors may
    differ there. Where an item that was not proposed could belong to the k best, within the scan's
    rounding, the row's candidates are all scored again.

    Args:
        queries: (b, d) float32.
        vectors: (V, d) float32.
        proposals: items found for each query.
        k: answers per query.
        metric: how to score.
        margins: (b,) bound of the scan's rounding, from `rounding_margins`.
        filters: what may be returned.
        rows: (b,) place of each query in the filters.

    Returns:
        scores: (b, k) float32, -inf at the end, and ids: (b, k) int64, -1 at the end.
    """
    b, proposed = proposals.ids.shape
    step = max(1, _GATHER_AT_ONCE // max(1, proposed * vectors.shape[1]))
    if proposed >= k and b <= step:  # a served request: what follows costs more than its scores
        ids, scores = proposals.ids, exact_scores(queries, vectors[proposals.ids], metric)
    else:
        scores = np.full((b, max(k, proposed)), -np.inf, dtype=np.float32)
        ids = np.full((b, max(k, proposed)), -1, dtype=np.int64)
        ids[:, :proposed] = proposals.ids
        for first in range(0, b, step):
            part = slice(first, first + step)
            scores[part, :proposed] = exact_scores(queries[part], vectors[proposals.ids[part]], metric)
    second = ids
    if ids.min(initial=0) < 0:
        scores[ids < 0] = -np.inf
        # Fillers sort behind every item, also behind one that scores -inf.
        second = np.where(ids < 0, np.iinfo(np.int64).max, ids)
    order = np.lexsort((second, -scores), axis=-1)[:, :k]
    line = np.arange(b)[:, None]  # as np.take_along_axis, in a fifth of its time for one query
    scores, ids = scores[line, order], ids[line, order]
    if proposals.floor.max(initial=-np.inf) == -np.inf:
        return scores, ids  # everything was proposed
    last = np.where(ids[:, -1] >= 0, scores[:, -1].astype(np.float64), -np.inf)
    unsure = (proposals.floor > -np.inf) & (last <= proposals.floor + margins)
    for row in unsure.nonzero()[0]:
        scores[row], ids[row] = _scan(queries[row], vectors, k, metric, filters, int(rows[row]))
    return scores, ids


def exact_scores(queries: Floats32, gathered: Floats32, metric: Metric) -> Floats32:
    """Score gathered items in float64, rounded to float32: (b, d) and (b, m, d) to (b, m)."""
    wide = queries.astype(np.float64)[:, None, :]
    items = gathered.astype(np.float64)
    if metric == "l2":
        items -= wide
        scores = -np.einsum("bmd,bmd->bm", items, items)
    else:
        # One einsum path for all shapes: the order of its sums must not depend on m.
        scores = np.einsum("bmd,bmd->bm", items, np.broadcast_to(wide, items.shape))
    rounded: Floats32 = scores.astype(np.float32)
    return rounded


def _scan(
    query: Floats32, vectors: Floats32, k: int, metric: Metric, filters: Filters, row: int
) -> tuple[Floats32, Ints]:
    """The k best of one query by scoring every permitted item in float64."""
    pool = np.arange(len(vectors), dtype=np.int64) if filters.candidates is None else filters.candidates
    pool = pool[filters.permits(pool[None, :], np.array([row]))[0]]
    step = max(1, _GATHER_AT_ONCE // vectors.shape[1])
    parts = [
        exact_scores(query[None], vectors[pool[first : first + step]][None], metric)[0]
        for first in range(0, len(pool), step)
    ]
    scores = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    if len(scores) > k:
        bar = np.partition(scores, -k)[-k]
        pool, scores = pool[scores >= bar], scores[scores >= bar]
    order = np.lexsort((pool, -scores))[:k]
    best_scores = np.full(k, -np.inf, dtype=np.float32)
    best_ids = np.full(k, -1, dtype=np.int64)
    best_scores[: len(order)] = scores[order]
    best_ids[: len(order)] = pool[order]
    return best_scores, best_ids
