"""The correction of the softmax where every occurrence has a weight, in plain PyTorch: the definition."""

from collections.abc import Callable

import torch
from torch import Tensor

from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.occurrences import (
    AGES,
    CLOCK,
    DAYS,
    HOURS,
    Occurrences,
    clock_buckets,
    distance_buckets,
)
from recsys.kernels.repeats.reference import LEAST_LEFT, gather, spread

__all__ = ["occurrence_correction"]

Spread = Callable[[Tensor], Tensor]
"""Lays rows or events out as (B, T) or (B, L)."""


def occurrence_correction(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    weights: Tensor,
    layout: RepeatLayout,
    *,
    sees_later: bool,
    n_items: int,
    label_smoothing: float,
    temperature: float,
) -> Tensor:
    """Compute the correction of each row; arguments as in the public function, which has checked them.

    Pairs are laid out as (B, T, L); the weights of an item's occurrences meet at the place of its first one,
    by a product with a matrix of zeros and ones, which adds in one order.
    """
    batch, most, longest = layout.shape
    own = layout.occurrences
    assert own is not None
    if hidden.shape[0] == 0:
        return log_totals + 0.0 * (hidden.sum() + keys.sum() + weights.sum())

    def rows(x: Tensor) -> Tensor:
        return spread(x, layout.row_slots, batch, most)

    def events(x: Tensor) -> Tensor:
        return spread(x, layout.event_slots, batch, longest)

    visible = events(layout.visible)
    present = rows(torch.ones_like(layout.places, dtype=torch.bool))[:, :, None]
    place = rows(layout.places)[:, :, None]
    at = torch.arange(longest, device=hidden.device, dtype=torch.int32)
    counted = visible[:, None] & present
    if not sees_later:
        counted = counted & (at < place)
    total = torch.where(counted, torch.exp(_pair_weights(weights, own, place, at, rows, events)), 0.0)

    firsts = events(own.first)[:, :, None] == at
    sums = total @ (firsts & visible[:, :, None]).to(total.dtype)
    held = sums > 0
    added = torch.log(torch.where(held, sums, 1.0)) / temperature
    # Keys of events that are not visible do not count, whatever they hold.
    known = torch.where(visible[:, :, None], events(keys), 0.0)
    scores = rows(hidden) @ known.transpose(1, 2) / temperature - rows(log_totals)[:, :, None]
    gained = torch.where(held, torch.expm1(added) * torch.exp(scores), 0.0).sum(-1)
    correction = torch.log1p(gained.clamp_min(LEAST_LEFT - 1))
    wanted = events(layout.items)[:, None] == rows(layout.targets)[:, :, None]
    correction = correction - (1 - label_smoothing) * torch.where(held & wanted, added, 0.0).sum(-1)
    if label_smoothing > 0:
        correction = correction - label_smoothing / n_items * added.sum(-1)
    return correction.flatten().index_select(0, layout.row_slots)


def _pair_weights(
    weights: Tensor, own: Occurrences, place: Tensor, at: Tensor, rows: Spread, events: Spread
) -> Tensor:
    """(B, T, L) logs of the weights of events, as rows meet them."""
    if own.event_quarters is None or own.row_quarters is None:
        return gather(weights, distance_buckets((place - at).abs(), len(weights)))
    n_distances = len(weights) - CLOCK
    by_distance, *by_clock = weights.split((n_distances, HOURS, AGES, DAYS))
    found = gather(by_distance, distance_buckets((place - at).abs(), n_distances))
    buckets = clock_buckets(rows(own.row_quarters)[:, :, None], events(own.event_quarters)[:, None])
    for table, bucket in zip(by_clock, buckets, strict=True):
        found = found + gather(table, bucket)
    return found
