"""The metrics of an index, scored so that bigger is better, and the final ordering of proposed items.

- inner_product: q . v
- l2: -|q - v|^2
- cosine: q . v of normalized copies; a zero vector has similarity 0 to everything
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.kernels import rescoring
from recsys.retrieval.filters import Filters, Ints

Metric = Literal["inner_product", "l2", "cosine"]
METRICS: tuple[str, ...] = get_args(Metric)
Floats32 = NDArray[np.float32]

NO_IDS: Ints = np.empty(0, dtype=np.int64)
_NO_FLOATS: Floats32 = np.empty((0, 0), dtype=np.float32)
_NO_DOUBLES: NDArray[np.float64] = np.empty(0, dtype=np.float64)


class Proposals(NamedTuple):
    """What a search in float32 found for some queries, before the exact ordering."""

    ids: Ints
    """(b, m) items, or rows of `gathered`; -1 where there was none."""

    found: Floats32 | None = None
    """(b, m) their scores there, best first; None promises nothing about items that were not proposed."""

    complete: bool = False
    """Whether nothing was left that could have been proposed."""

    negative: bool = False
    """Whether `found` are distances: scores with the other sign."""

    shifts: NDArray[np.float64] | None = None
    """(b,) what `found` are above the scores."""

    gathered: tuple[Ints, Floats32] | None = None
    """(n,) ascending items, allowed all of them, and their (n, d) vectors; None for the whole catalog."""


def normalized(vectors: Floats32) -> Floats32:
    """Return a copy with rows of length 1; zero rows stay zero."""
    lengths = np.sqrt(np.einsum("vd,vd->v", vectors, vectors, dtype=np.float64))
    scaled: Floats32 = (vectors / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32)
    return scaled


def longest(vectors: Floats32) -> float:
    """Greatest Euclidean length of a row."""
    return float(np.sqrt(np.einsum("vd,vd->v", vectors, vectors, dtype=np.float64).max(initial=0.0)))


def too_long() -> ArgumentError:
    """The error of vectors whose scores could leave the range of float32."""
    return ArgumentError("a query or item vector is so long that scores overflow float32: scale them down")


def order_exactly(
    queries: Floats32,
    vectors: Floats32,
    proposals: Proposals,
    k: int,
    *,
    metric: Metric,
    longest_item: float,
    filters: Filters,
    rows: Ints,
    slack: int = rescoring.SLACK,
) -> tuple[Floats32, Ints, int]:
    """Drop what no filter permits, score the rest in float64 and order by (score descending, id ascending).

    The search in float32 only proposes: its last bits depend on the shape of the product, so equal vectors
    may differ there. Where an item that was not scored could belong to the k best, within the search's
    rounding, the row's candidates are all scored again.

    Args:
        queries: (b, d) float32.
        vectors: (V, d) float32.
        proposals: items found for each query.
        k: answers per query.
        metric: how to score.
        longest_item: greatest Euclidean length of a vector.
        filters: what may be returned.
        rows: (b,) place of each query in the filters.
        slack: most permitted proposals past k that are scored.

    Returns:
        scores: (b, k) float32, -inf at the end; ids: (b, k) int64, -1 at the end; and how many proposals were
        not among the filters' candidates.

    Raises:
        ArgumentError: a score could leave the range of float32.
    """
    answers = Answers.of(len(queries), k)
    found = proposals.found
    labels, table = (NO_IDS, vectors) if proposals.gathered is None else proposals.gathered
    unchecked = proposals.gathered is not None or filters.candidates is None
    refused, doubts = rescoring.rescore(
        queries,
        table,
        metric == "l2",
        proposals.ids,
        _NO_FLOATS if found is None else found,
        -1.0 if proposals.negative else 1.0,
        _NO_DOUBLES if proposals.shifts is None else proposals.shifts,
        proposals.complete,
        labels,
        NO_IDS if unchecked else filters.candidates,
        filters.ids,
        filters.offsets,
        rows,
        k,
        # A search that promises nothing did its best with all of them.
        proposals.ids.shape[1] if found is None else k + slack,
        longest_item,
        *answers,
    )
    return (*finished(queries, vectors, answers, refused, doubts, metric, filters, rows), refused)


class Answers(NamedTuple):
    """Room for the answers to b queries, as the compiled functions fill it."""

    scores: Floats32
    ids: Ints
    doubtful: NDArray[np.bool_]

    @classmethod
    def of(cls, b: int, k: int) -> "Answers":
        """Room that is not filled."""
        scores, ids = np.empty((b, k), dtype=np.float32), np.empty((b, k), dtype=np.int64)
        return cls(scores, ids, np.empty(b, dtype=np.bool_))


def finished(
    queries: Floats32,
    vectors: Floats32,
    answers: Answers,
    refused: int,
    doubts: int,
    metric: Metric,
    filters: Filters,
    rows: Ints,
) -> tuple[Floats32, Ints]:
    """The answers, those in doubt replaced by a scan in float64.

    Args:
        queries: (b, d).
        vectors: (V, d).
        answers: of the queries.
        refused: what the compiled function returned first.
        doubts: and second.
        metric: how to score.
        filters: what may be returned.
        rows: (b,) place of each query in the filters.

    Raises:
        ArgumentError: a score could leave the range of float32.
    """
    if refused < 0:
        raise too_long()
    if doubts:
        for row in answers.doubtful.nonzero()[0]:
            answers.scores[row], answers.ids[row] = _scan(
                queries[row],
                vectors,
                k=answers.ids.shape[1],
                metric=metric,
                filters=filters,
                row=int(rows[row]),
            )
    return answers.scores, answers.ids


def _scan(
    query: Floats32, vectors: Floats32, k: int, metric: Metric, filters: Filters, row: int
) -> tuple[Floats32, Ints]:
    """The k best of one query by scoring every permitted item in float64."""
    pool = np.arange(len(vectors), dtype=np.int64) if filters.candidates is None else filters.candidates
    pool = pool[filters.permits(pool[None, :], np.array([row]))[0]]
    scores = np.empty(len(pool), dtype=np.float32)
    rescoring.score_items(query, vectors.reshape(-1), vectors.shape[1], pool, metric == "l2", scores)
    if len(scores) > k:
        bar = np.partition(scores, -k)[-k]
        pool, scores = pool[scores >= bar], scores[scores >= bar]
    order = np.lexsort((pool, -scores))[:k]
    best_scores = np.full(k, -np.inf, dtype=np.float32)
    best_ids = np.full(k, -1, dtype=np.int64)
    best_scores[: len(order)] = scores[order]
    best_ids[: len(order)] = pool[order]
    return best_scores, best_ids
