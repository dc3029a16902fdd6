"""Exact ranking over the whole catalog: the rank of a known target, and the k best items.

Read `reference` first, the definition by brute force; then `cpu` with `cpu_rank` and `cpu_top_k`, or `triton`
with `triton_rank` and `triton_top_k`. What is called prefilter scores at low precision, with a proven bound
on the error, and rules out what cannot matter: it saves time and changes no bit.

Scores are inner products hidden . item_weight. Legend: B rows, V items, d width.
"""

from types import ModuleType
from typing import NamedTuple

from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.ranking import reference
from recsys.kernels.ranking.checks import TIES, check_exclude, check_ids, check_scored
from recsys.kernels.shared.backends import BackendTable

__all__ = ["TargetRanks", "TopK", "rank_of_target", "top_k"]


def _cpu() -> ModuleType:
    from recsys.kernels.ranking import cpu

    return cpu


def _triton() -> ModuleType:
    from recsys.kernels.ranking import triton

    return triton


BACKENDS = BackendTable[ModuleType](
    "ranking", {"reference": lambda: reference, "cpu": _cpu, "triton": _triton}
)


class TargetRanks(NamedTuple):
    """Ranks of the targets, 1 for the best; int64 (B,), float64 (B,) for ties="average"."""

    kept: Tensor
    """Among all items."""

    removed: Tensor
    """Among all items but the row's excluded ones; the target always stays in."""


class TopK(NamedTuple):
    """The best items of each row, best first."""

    scores: Tensor
    """(B, k) float32 (float64 for float64 inputs); -inf where no candidate was left."""

    ids: Tensor
    """(B, k) int64; -1 where no candidate was left."""


def rank_of_target(
    hidden: Tensor,
    item_weight: Tensor,
    targets: Tensor,
    exclude: tuple[Tensor, Tensor] | None = None,
    *,
    ties: str = "pessimistic",
    backend: str | None = None,
) -> TargetRanks:
    """Rank each row's target among all items, exactly, without the (B, V) scores.

    Args:
        hidden: (B, d) float32, float64, bfloat16 or float16.
        item_weight: (V, d), dtype of hidden.
        targets: (B,) int64 in [0, V).
        exclude: items that `removed` excludes, as (ids, offsets): ids (E,) int64 in [0, V), offsets
            (B + 1,) int64 from 0 to E; repeats are harmless and the target itself always stays a candidate.
        ties: "pessimistic": 1 + greater + equal others; "optimistic": 1 + greater; "average": their mean.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        `TargetRanks(kept, removed)`, both from one pass over the catalog.

    Raises:
        ArgumentError: an argument does not fit, or a score is not finite.

    Cost: 2 B V d FLOP and O(block) memory beside the inputs ("triton": and of the exclusion lists). On a GPU
    the call waits for the device once, at its end, to learn whether all scores were finite and all targets
    items; excluded ids and offsets are not checked there.
    Numerics: the target's score is read out of the same product as its competitors' scores: a separate dot
    product differs in the last bits and gives wrong ranks.
    """
    check_scored(hidden, item_weight)
    check_ids("targets", targets, hidden.shape[0], item_weight)
    check_exclude(exclude, hidden, item_weight)
    if ties not in TIES:
        raise ArgumentError(f"ties is {ties!r}: give one of {', '.join(TIES)}")
    if hidden.requires_grad or item_weight.requires_grad:
        hidden, item_weight = hidden.detach(), item_weight.detach()
    rank = BACKENDS.load(BACKENDS.choose(backend, hidden)).rank_of_target
    return TargetRanks(*rank(hidden, item_weight, targets, exclude, ties=ties))


def top_k(
    hidden: Tensor,
    item_weight: Tensor,
    k: int,
    exclude: tuple[Tensor, Tensor] | None = None,
    *,
    candidates: Tensor | None = None,
    deny: Tensor | None = None,
    backend: str | None = None,
) -> TopK:
    """Find the k items with the largest scores of each row, exactly, without the (B, V) scores.

    Equal scores are ordered by id, lower first.

    Args:
        hidden: (B, d) float32, float64, bfloat16 or float16.
        item_weight: (V, d), dtype of hidden.
        k: answers per row, >= 1; may exceed V.
        exclude: items never returned, as (ids, offsets): ids (E,) int64 in [0, V), offsets (B + 1,) int64
            from 0 to E.
        candidates: (C,) int64, the only ids that may be returned, for every row; None for the whole catalog.
        deny: (D,) int64, ids never returned, for any row; None for none.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        `TopK(scores, ids)`. Rows with fewer than k candidates end in id -1 and score -inf.

    Raises:
        ArgumentError: an argument does not fit, or a score is not finite.

    Cost: 2 B V d FLOP and O(block + B k) memory beside the inputs ("cpu"); "triton" adds 64 MiB, or 8 bytes
    for each score of 8 rows. On a GPU as in `rank_of_target`: one wait, or up to three where many scores
    nearly tie; no check of ids.
    """
    check_scored(hidden, item_weight)
    check_exclude(exclude, hidden, item_weight)
    if k < 1:
        raise ArgumentError(f"k is {k}: give a whole number of at least 1")
    if candidates is not None:
        check_ids("candidates", candidates, None, item_weight)
    if deny is not None:
        check_ids("deny", deny, None, item_weight)
    if hidden.requires_grad or item_weight.requires_grad:
        hidden, item_weight = hidden.detach(), item_weight.detach()
    select = BACKENDS.load(BACKENDS.choose(backend, hidden)).top_k
    return TopK(*select(hidden, item_weight, k, exclude, candidates=candidates, deny=deny))
