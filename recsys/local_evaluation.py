"""Rank targets under local latent vectors, where a score depends on the query beyond an inner product."""

import numpy as np
from torch import Tensor

from recsys.datasets.store import SequenceStore
from recsys.errors import ArgumentError
from recsys.evaluation.metrics import Floats, per_user_metrics
from recsys.evaluation.popularity import popularity_ranks
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.ranking_pass import RankTable
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets
from recsys.retrieval.local_latent import LocalLatent
from recsys.validation import Validation

_ROWS = 256


def local_ranks(
    local: LocalLatent,
    states: Tensor,
    targets: EvaluationTargets,
    items: np.ndarray[tuple[int], np.dtype[np.int32]],
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
    behind = local.behind.vectors.double().numpy()
    squares = np.einsum("vd,vd->v", behind, behind)
    kept = np.zeros(targets.n_rows, dtype=np.int64)
    removed = np.zeros(targets.n_rows, dtype=np.int64)
    for first in range(0, targets.n_users, _ROWS):
        users = range(first, min(first + _ROWS, targets.n_users))
        queries = states[first : first + _ROWS].numpy()
        scores, near = local.score(queries)
        far = 2 * queries.astype(np.float64) @ behind.T - squares
        for place, user in enumerate(users):
            order = _places_in_order(scores[place], near[place], far[place])
            row_start, row_end = int(targets.row_offsets[user]), int(targets.row_offsets[user + 1])
            history = items[targets.history_start[row_start] : targets.history_end[row_start]]
            seen = np.unique(history)
            for row in range(row_start, row_end):
                target = int(targets.target[row])
                rank = int(order[target])
                kept[row] = rank
                others = seen[seen != target]
                removed[row] = rank - int(np.count_nonzero(order[others] <= rank))
    return kept, removed


def _places_in_order(scores: Floats, near: Ints, far: Floats) -> Ints:
    """(V,) 1-based rank of every item, equal ones all at the last of their places."""
    found = near[near >= 0]
    tier = np.zeros(len(far), dtype=np.int64)
    tier[found] = 1
    values = far.copy()
    values[found] = scores[near >= 0]
    order = np.lexsort((-values, -tier))
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (values[order][1:] != values[order][:-1]) | (tier[order][1:] != tier[order][:-1])
    last = np.append(np.flatnonzero(fresh)[1:], len(order))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.repeat(last, np.diff(np.append(np.flatnonzero(fresh), len(order))))
    return ranks


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


def local_ndcg(local: LocalLatent, validation: Validation) -> float:
    """NDCG@10 on the validation events, seen items removed."""
    targets = validation.targets
    _, removed = local_ranks(local, validation.states, targets, np.asarray(validation.store.items))
    return float(per_user_metrics(removed, targets.row_offsets, (10,))["ndcg@10"].mean())
