"""Local aggregation on the CPU, a query being one thread's: the same bits whatever the number of threads."""

import numpy as np
from numpy.typing import NDArray

from recsys.kernels.local_aggregation import cpu_forward
from recsys.kernels.local_aggregation.checks import check_neighbours
from recsys.kernels.local_aggregation.reference import Ints
from recsys.kernels.shared.threads import launch, threads_for

__all__ = ["local_ranks", "local_scores"]

Floats32 = NDArray[np.float32]


def local_scores(
    queries: Floats32, states: Floats32, owners: Ints, ids: Ints, near: Floats32
) -> tuple[Floats32, Ints]:
    """Score the items of each query's nearest states: an item's vector is their mean, weighted by 1/distance.

    Args:
        queries: (b, d) float32.
        states: (M, d) float32.
        owners: (M,) int64 in [0, 2^31), the item of each state.
        ids: (b, m) int64 nearest states, each once, best first; -1 for none. m < 2^31.
        near: (b, m) float32, minus their squared distances.

    Returns:
        (b, m) float32 minus squared distances of the query to the items' vectors, computed in float64, and
        (b, m) int64 items, ascending, each once; -inf and -1 at the end.

    Raises:
        ArgumentError: shapes do not fit, or an id is not of a state.
    """
    check_neighbours(queries, states, owners, ids, near)
    scores, items = np.empty(ids.shape, dtype=np.float32), np.empty(ids.shape, dtype=np.int64)
    launch(
        cpu_forward.score_worker,
        threads_for(len(ids), ids.size * (queries.shape[1] + 100)),
        ids.shape[1],
        queries.shape[1],
        np.ascontiguousarray(queries, dtype=np.float32).reshape(-1),
        np.ascontiguousarray(states, dtype=np.float32).reshape(-1),
        np.ascontiguousarray(owners, dtype=np.int64),
        np.ascontiguousarray(ids, dtype=np.int64).reshape(-1),
        np.ascontiguousarray(near, dtype=np.float32).reshape(-1),
        scores.reshape(-1),
        items.reshape(-1),
    )
    return scores, items


def local_ranks(
    scores: Floats32,
    items: Ints,
    behind: NDArray[np.float64],
    log: NDArray[np.int32],
    starts: Ints,
    ends: Ints,
    targets: Ints,
    offsets: Ints,
) -> tuple[Ints, Ints]:
    """Rank targets where the items with a local vector come before all others.

    Args:
        scores: (b, m) float32 of the items with a local vector.
        items: (b, m) int64 in [0, V), each once, -1 for none; unchecked, as the rest is.
        behind: (b, V) float64 scores of all items, by which those without a local vector are ordered.
        log: (N,) int32 item of each event.
        starts: (R,) int64 first event of each row's history.
        ends: (R,) int64 event past its end.
        targets: (R,) int64 in [0, V).
        offsets: (b + 1,) int64, the rows of each query.

    Returns:
        (R,) int64 ranks among all items, and among all but those of the history (the target stays); of equal
        items the target comes last.
    """
    kept, removed = np.empty(len(targets), dtype=np.int64), np.empty(len(targets), dtype=np.int64)
    work = len(targets) * behind.shape[1] + int((ends - starts).sum())
    launch(
        cpu_forward.rank_worker,
        threads_for(len(items), 2 * work),
        items.shape[1],
        behind.shape[1],
        np.ascontiguousarray(scores).reshape(-1),
        np.ascontiguousarray(items).reshape(-1),
        np.ascontiguousarray(behind).reshape(-1),
        # A memory map compiles as the array that it is.
        np.ascontiguousarray(log.view(np.ndarray)),
        np.ascontiguousarray(starts),
        np.ascontiguousarray(ends),
        np.ascontiguousarray(targets),
        np.ascontiguousarray(offsets),
        kept,
        removed,
    )
    return kept, removed
