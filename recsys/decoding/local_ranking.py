"""Rank targets under local latent vectors, where a score depends on the query beyond an inner product."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.decoding.local_latent import LocalLatent
from recsys.decoding.validation import Validation
from recsys.errors import ArgumentError
from recsys.evaluation.metrics import per_user_metrics
from recsys.evaluation.popularity import popularity_ranks
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.ranking_pass import RankTable
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets
from recsys.kernels.local_aggregation import local_ranks as rank_local
from recsys.retrieval.item_index import NeighborArrays

_USERS = 256
"""Users who are ranked together: bounds the memory of their neighbours and scores."""


def local_ranks(
    local: LocalLatent, states: Tensor, targets: EvaluationTargets, items: NDArray[np.int32]
) -> tuple[Ints, Ints]:
    """Rank each row's target among all items.

    Items with a local vector come first, by minus the squared distance, then the others by that of the index
    behind; ties count against the target.

    Args:
        local: the decoder.
        states: (U, d) state of each counted user.
        targets: the rows.
        items: (N,) items of all events.

    Returns:
        (R,) int64 ranks with seen items kept, and with them removed (the target always stays).
    """
    kept, removed = ranks_by_neighbours(local, (local.neighbours,), states, targets, items)
    return kept[0], removed[0]


def ranks_by_neighbours(
    local: LocalLatent,
    neighbours: Sequence[int],
    states: Tensor,
    targets: EvaluationTargets,
    items: NDArray[np.int32],
) -> tuple[Ints, Ints]:
    """As `local_ranks`, for several numbers of neighbours: the states are searched once, for the greatest.

    Args:
        local: the decoder; its own number of neighbours does not count.
        neighbours: n numbers.
        states: as in `local_ranks`; so are the others.
        targets: see there.
        items: see there.

    Returns:
        (n, R) int64 ranks with seen items kept, and with them removed.
    """
    behind = local.behind.vectors.double().cpu().numpy()
    squares = np.einsum("vd,vd->v", behind, behind)
    kept = np.zeros((len(neighbours), targets.n_rows), dtype=np.int64)
    removed = np.zeros_like(kept)
    for first in range(0, targets.n_users, _USERS):
        offsets = targets.row_offsets[first : first + _USERS + 1]
        rows = slice(int(offsets[0]), int(offsets[-1]))
        queries = states[first : first + _USERS].numpy()
        far = 2 * queries.astype(np.float64) @ behind.T - squares
        near = local.nearest(queries, max(neighbours))
        for place, count in enumerate(neighbours):
            fewer = NeighborArrays(near.scores[:, :count], near.ids[:, :count])
            kept[place, rows], removed[place, rows] = rank_local(
                *local.score_near(queries, fewer),
                far,
                items,
                targets.history_start[rows],
                targets.history_end[rows],
                targets.target[rows],
                offsets - offsets[0],
            )
    return kept, removed


def local_table(
    local: LocalLatent, states: Tensor, targets: EvaluationTargets, store: SequenceStore, protocol: Protocol
) -> RankTable:
    """Ranks of every row, for `recsys.evaluation.evaluate.summarize`.

    Raises:
        ArgumentError: a protocol with sampled negatives or another tie rule.
    """
    if protocol.sampled or protocol.ties != "pessimistic":
        raise ArgumentError(
            f"protocol '{protocol.name}': local vectors are ranked among all items, ties against"
        )
    kept, removed = local_ranks(local, states, targets, np.asarray(store.items))
    return RankTable(
        model={"kept": kept, "removed": removed},
        popularity=popularity_ranks(store, targets, ties=protocol.ties)._asdict(),
    )


def local_ndcgs(local: LocalLatent, neighbours: Sequence[int], validation: Validation) -> list[float]:
    """NDCG@10 on the validation events, seen items removed, under each number of neighbours."""
    targets = validation.targets
    items = np.asarray(validation.store.items)
    _, removed = ranks_by_neighbours(local, neighbours, validation.states, targets, items)
    return [float(per_user_metrics(ranks, targets.row_offsets, (10,))["ndcg@10"].mean()) for ranks in removed]
