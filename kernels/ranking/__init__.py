"""Exact ranking over the whole catalog: the rank of a known target, and the k best items.

Scores are inner products hidden . item_weight. Legend: B rows, V items, d width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.backend import choose_backend
from recsys.kernels.ranking import reference

__all__ = ["TargetRanks", "TopK", "rank_of_target", "top_k"]

_TIES = ("pessimistic", "optimistic", "average")


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
        exclude: items that `removed` leaves out, as (ids, offsets): ids (E,) int64 in [0, V), offsets
            (B + 1,) int64 from 0 to E; repeats are harmless and the target itself always stays a candidate.
        ties: "pessimistic": 1 + greater + equal others; "optimistic": 1 + greater; "average": their mean.
        backend: "reference", "cpu" or None to choose by device.

    Returns:
        `TargetRanks(kept, removed)`, both from one pass over the catalog.

    Raises:
        ArgumentError: an argument does not fit, or a score is not finite.

    Cost: 2 B V d FLOP and O(block) memory beside the inputs ("cpu").
    Numerics: the target's score is read out of the same product as its competitors' scores: a separate dot
    product differs in the last bits and gives wrong ranks.
    """
    _check_scored(hidden, item_weight)
    _check_ids("targets", targets, hidden.shape[0], item_weight)
    _check_exclude(exclude, hidden, item_weight)
    if ties not in _TIES:
        raise ArgumentError(f"ties is {ties!r}: give one of {', '.join(_TIES)}")
    hidden, item_weight = hidden.detach(), item_weight.detach()
    if choose_backend("ranking", backend, hidden) == "cpu":
        from recsys.kernels.ranking import cpu

        return TargetRanks(*cpu.rank_of_target(hidden, item_weight, targets, exclude, ties=ties))
    return TargetRanks(*reference.rank_of_target(hidden, item_weight, targets, exclude, ties=ties))


def top_k(
    hidden: Tensor,
    item_weight: Tensor,
    k: int,
    exclude: tuple[Tensor, Tensor] | None = None,
    *,
    candidates: Tensor | None = None,
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
        backend: "reference", "cpu" or None to choose by device.

    Returns:
        `TopK(scores, ids)`. Rows with fewer than k candidates end in id -1 and score -inf.

    Raises:
        ArgumentError: an argument does not fit, or a score is not finite.

    Cost: 2 B V d FLOP and O(block + B k) memory beside the inputs ("cpu").
    """
    _check_scored(hidden, item_weight)
    _check_exclude(exclude, hidden, item_weight)
    if k < 1:
        raise ArgumentError(f"k is {k}: give a whole number of at least 1")
    if candidates is not None:
        _check_ids("candidates", candidates, None, item_weight)
    hidden, item_weight = hidden.detach(), item_weight.detach()
    if choose_backend("ranking", backend, hidden) == "cpu":
        from recsys.kernels.ranking import cpu

        return TopK(*cpu.top_k(hidden, item_weight, k, exclude, candidates=candidates))
    return TopK(*reference.top_k(hidden, item_weight, k, exclude, candidates=candidates))


def _check_scored(hidden: Tensor, item_weight: Tensor) -> None:
    if hidden.dim() != 2 or not hidden.is_floating_point():
        raise ArgumentError(f"hidden is {hidden.dtype} of shape {tuple(hidden.shape)}: give floating (B, d)")
    if item_weight.dim() != 2 or item_weight.shape[1] != hidden.shape[1] or item_weight.shape[0] == 0:
        raise ArgumentError(
            f"item_weight has shape {tuple(item_weight.shape)} and hidden {tuple(hidden.shape)}: "
            "give (V, d) with the d of hidden and V >= 1"
        )
    if item_weight.dtype != hidden.dtype or item_weight.device != hidden.device:
        raise ArgumentError(
            f"item_weight is {item_weight.dtype} on {item_weight.device} and hidden {hidden.dtype} on "
            f"{hidden.device}: give one dtype and device"
        )


def _check_ids(name: str, ids: Tensor, count: int | None, item_weight: Tensor) -> None:
    if ids.dim() != 1 or ids.dtype != torch.int64 or (count is not None and ids.shape[0] != count):
        wanted = "int64 (C,)" if count is None else f"int64 ({count},), one per row of hidden"
        raise ArgumentError(f"{name} is {ids.dtype} of shape {tuple(ids.shape)}: give {wanted}")
    if ids.device != item_weight.device:
        raise ArgumentError(
            f"{name} is on {ids.device} and item_weight on {item_weight.device}: give one device"
        )
    if ids.numel() and ids.device.type == "cpu":
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= item_weight.shape[0]:
            raise ArgumentError(
                f"{name} holds {lowest if lowest < 0 else highest} and item_weight has "
                f"{item_weight.shape[0]} rows: give ids in [0, V)"
            )


def _check_exclude(exclude: tuple[Tensor, Tensor] | None, hidden: Tensor, item_weight: Tensor) -> None:
    if exclude is None:
        return
    ids, offsets = exclude
    _check_ids("exclude ids", ids, None, item_weight)
    if tuple(offsets.shape) != (hidden.shape[0] + 1,) or offsets.dtype != torch.int64:
        raise ArgumentError(
            f"exclude offsets is {offsets.dtype} of shape {tuple(offsets.shape)} and hidden has shape "
            f"{tuple(hidden.shape)}: give int64 (B + 1,)"
        )
    if offsets.device.type == "cpu" and (
        int(offsets[0]) != 0 or int(offsets[-1]) != ids.shape[0] or bool((offsets.diff() < 0).any())
    ):
        raise ArgumentError(
            f"exclude offsets runs from {int(offsets[0])} to {int(offsets[-1])} and there are {ids.shape[0]} "
            "ids: give the running sum of the rows' counts, from 0"
        )
