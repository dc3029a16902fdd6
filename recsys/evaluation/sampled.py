"""Ranks among drawn negatives: only for setting figures beside those published with this protocol.

Sampled metrics order models differently from full ranking (Krichene and Rendle 2020), hence the warning
that goes with every report of them. Source of the rule: SASRec.pytorch, python/utils.py `evaluate`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import ArgumentError, DataError
from recsys.evaluation.metrics import Ranks
from recsys.evaluation.popularity import combine_ranks
from recsys.evaluation.protocol import Ties
from recsys.evaluation.spans import Ints, distinct_items
from recsys.evaluation.targets import EvaluationTargets, PreparedLog


def draw_negatives(
    store: PreparedLog, targets: EvaluationTargets, rows: Ints, count: int, generator: np.random.Generator
) -> Ints:
    """Draw negatives uniformly, with replacement, outside the training events and the target of each row.

    Args:
        store: the prepared log.
        targets: the rows.
        rows: (b,) int64 rows to draw for.
        count: negatives per row.
        generator: source of the draws.

    Returns:
        (b, count) int64.

    Raises:
        DataError: a user's training events hold the whole catalog, so nothing is left to draw.
    """
    user, target = targets.user[rows], targets.target[rows]
    first = np.asarray(store.offsets[:-1], dtype=np.int64)[user]
    seen, offsets = distinct_items(
        store.items, first, store.valid_start[user].astype(np.int64), store.n_items
    )
    owner = np.repeat(np.arange(len(rows), dtype=np.int64), np.diff(offsets))
    places = np.arange(len(rows), dtype=np.int64)
    refused = np.unique(np.concatenate([owner * store.n_items + seen, places * store.n_items + target]))
    full = np.bincount(refused // store.n_items, minlength=len(rows)) >= store.n_items
    if np.any(full):
        raise DataError(
            f"user {int(user[np.argmax(full)])} has every item of the catalog in training: "
            "no negative can be drawn, use a protocol that ranks the full catalog"
        )
    drawn = generator.integers(0, store.n_items, size=(len(rows), count))
    keys = places[:, None] * store.n_items + drawn
    while True:
        again = np.isin(keys, refused)
        n_again = int(np.count_nonzero(again))
        if n_again == 0:
            return keys % store.n_items
        row_base = keys[again] // store.n_items * store.n_items
        keys[again] = row_base + generator.integers(0, store.n_items, size=n_again)


def ranks_among(
    hidden: Tensor,
    item_weight: Tensor,
    targets: Ints,
    negatives: Ints,
    ties: Ties,
    bias: NDArray[np.float32] | None = None,
) -> Ranks:
    """Rank each target among its row's negatives by inner product.

    Args:
        hidden: (b, d).
        item_weight: (V, d).
        targets: (b,) int64.
        negatives: (b, n) int64.
        ties: "pessimistic", "optimistic" or "average".
        bias: (b,) added to the targets' scores; negatives are never items of the history and have none.

    Returns:
        (b,) 1-based ranks.
    """
    candidates = torch.from_numpy(np.concatenate([targets[:, None], negatives], axis=1)).to(
        item_weight.device
    )
    # One product for target and negatives: a separate dot would differ from theirs in the last bits.
    scores = torch.bmm(item_weight[candidates].float(), hidden.float()[:, :, None])[:, :, 0].cpu().numpy()
    if bias is not None:
        scores[:, 0] += bias
    return rank_first(scores, ties)


def rank_first(scores: NDArray[np.number[Any]], ties: Ties) -> Ranks:
    """Rank column 0 of each row among the row: (b, 1 + n) scores to (b,) 1-based ranks."""
    if not np.all(np.isfinite(scores)):
        raise ArgumentError("a score is not finite: the model's states or item vectors hold NaN or infinity")
    greater = np.count_nonzero(scores[:, 1:] > scores[:, :1], axis=1)
    equal = np.count_nonzero(scores[:, 1:] == scores[:, :1], axis=1)
    return combine_ranks(greater, equal, ties)
