"""Exact ranks and top-k by brute force: the definition that every backend is tested against.

Legend: B rows, V items, d width. This form holds the (B, V) scores in memory.
"""

import torch
from torch import Tensor

from recsys.errors import ArgumentError

Jagged = tuple[Tensor, Tensor]

NOT_FINITE = (
    "hidden and item_weight give scores that are NaN or infinite: check that the model has not diverged"
)


def rank_of_target(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, exclude: Jagged | None, *, ties: str
) -> tuple[Tensor, Tensor]:
    """Rank each target by comparing its score with every other score of its row.

    Args:
        hidden: (B, d).
        item_weight: (V, d).
        targets: (B,) int64.
        exclude: (ids (E,), offsets (B + 1,)) or None.
        ties: "pessimistic" (rank 1 + greater + equal others), "optimistic" (1 + greater) or "average".

    Returns:
        Ranks among all items, and among the items that are not excluded: (B,) int64, float64 for "average".
    """
    scores = finite_scores(hidden, item_weight)
    target_scores = scores.gather(1, targets[:, None])
    greater = scores > target_scores
    equal = scores == target_scores
    equal.scatter_(1, targets[:, None], False)
    kept = rank_from_counts(greater.sum(1), equal.sum(1), ties)
    candidates = ~excluded_mask(scores.shape, exclude, scores.device)
    return kept, rank_from_counts((greater & candidates).sum(1), (equal & candidates).sum(1), ties)


def rank_from_counts(above: Tensor, level: Tensor, ties: str) -> Tensor:
    """Make ranks of the numbers of greater and of equal other scores (int64)."""
    if ties == "optimistic":
        return above + 1
    if ties == "pessimistic":
        return above + level + 1
    return above + 1 + level.double() / 2


def finite_scores(hidden: Tensor, item_weight: Tensor) -> Tensor:
    """Score every item for every row; refuse NaN and infinity, which no order can rank.

    Raises:
        ArgumentError: a score is not finite.
    """
    if hidden.dtype.itemsize < 4:
        hidden, item_weight = hidden.float(), item_weight.float()
    scores = hidden @ item_weight.T
    if not bool(torch.isfinite(scores).all()):
        raise ArgumentError(NOT_FINITE)
    return scores


def excluded_mask(shape: tuple[int, ...], exclude: Jagged | None, device: torch.device) -> Tensor:
    """Spread jagged exclusion lists to a (B, V) bool mask."""
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    if exclude is not None:
        ids, offsets = exclude
        rows = torch.repeat_interleave(torch.arange(shape[0], device=device), offsets.diff())
        mask[rows, ids] = True
    return mask


def top_k(
    hidden: Tensor,
    item_weight: Tensor,
    k: int,
    exclude: Jagged | None,
    *,
    candidates: Tensor | None,
    deny: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Take the first k of a stable sort by (score descending, id ascending).

    Args:
        hidden: (B, d).
        item_weight: (V, d).
        k: answers per row.
        exclude: (ids (E,), offsets (B + 1,)) never returned, or None.
        candidates: (C,) the only ids that may be returned, or None for all.
        deny: (D,) ids never returned for any row, or None.

    Returns:
        scores (B, k) and ids (B, k) int64; id -1 and score -inf where candidates ran out.
    """
    scores = finite_scores(hidden, item_weight)
    excluded = excluded_mask(scores.shape, exclude, scores.device)
    if candidates is not None:
        allowed = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        allowed[candidates] = True
        excluded |= ~allowed
    if deny is not None:
        excluded[:, deny] = True
    # Excluded items go behind all others by a second stable sort, whatever their score.
    ids = scores.argsort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, excluded.gather(1, ids).int().argsort(dim=1, stable=True))[:, :k]
    gone = excluded.gather(1, ids)
    best = scores.gather(1, ids).masked_fill(gone, float("-inf"))
    ids = ids.masked_fill(gone, -1)
    short = k - ids.shape[1]
    if short > 0:
        best = torch.nn.functional.pad(best, (0, short), value=float("-inf"))
        ids = torch.nn.functional.pad(ids, (0, short), value=-1)
    return best, ids
