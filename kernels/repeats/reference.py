"""The correction of the softmax for repeats in plain PyTorch: the definition."""

from typing import Any

import torch
from torch import Tensor

from recsys.kernels.repeats.layout import RepeatLayout

__all__ = ["LEAST_LEFT", "gather", "repeat_correction", "spread"]

LEAST_LEFT = 1e-6
"""Share of a row's probability that lies outside its window at least: less is float32's rounding."""


def repeat_correction(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    bias: Tensor,
    layout: RepeatLayout,
    *,
    sees_later: bool,
    n_items: int,
    label_smoothing: float,
    temperature: float,
) -> Tensor:
    """Compute the correction of each row; arguments as in the public function, which has checked them.

    Rows and events are laid out as (B, T) and (B, L), so that every pair of a window is one product of
    batched matrices, and gathering by slots, which are distinct, adds gradients in one order.
    """
    batch, most, longest = layout.shape
    if hidden.shape[0] == 0:
        return log_totals + 0.0 * (hidden.sum() + keys.sum() + bias.sum())
    scores = spread(hidden, layout.row_slots, batch, most) @ spread(
        keys, layout.event_slots, batch, longest
    ).transpose(1, 2)
    scores = scores / temperature - spread(log_totals, layout.row_slots, batch, most)[:, :, None]

    place = spread(layout.places, layout.row_slots, batch, most)[:, :, None]
    at = torch.arange(longest, device=hidden.device, dtype=torch.int32)
    following = spread(layout.following, layout.event_slots, batch, longest)[:, None]
    visible = spread(layout.visible, layout.event_slots, batch, longest)[:, None]
    row = spread(torch.ones_like(layout.places, dtype=torch.bool), layout.row_slots, batch, most)[:, :, None]
    distance = (place - at).abs()
    if sees_later:
        preceding = spread(layout.preceding, layout.event_slots, batch, longest)[:, None]
        # Of several occurrences the nearest counts; of two as near the earlier one.
        nearest = torch.where(
            at < place, (following - place).abs() >= distance, (preceding - place).abs() > distance
        )
    else:
        nearest = (at < place) & (following >= place)
    counted = nearest & visible & row

    powers = 2 ** torch.arange(1, len(bias), device=hidden.device, dtype=torch.int32)
    bucket = torch.bucketize(distance, powers, right=True, out_int32=True)
    added = gather(bias, bucket) / temperature
    zero = added.new_zeros(())
    gained = torch.where(counted, torch.expm1(added) * torch.exp(scores), zero).sum(-1)
    correction = torch.log1p(gained.clamp_min(LEAST_LEFT - 1))
    items = spread(layout.items, layout.event_slots, batch, longest)[:, None]
    targets = spread(layout.targets, layout.row_slots, batch, most)[:, :, None]
    own = torch.where(counted & (items == targets), added, zero).sum(-1)
    correction = correction - (1 - label_smoothing) * own
    if label_smoothing > 0:
        everywhere = torch.where(counted, added, zero).sum(-1)
        correction = correction - label_smoothing / n_items * everywhere
    return correction.flatten().index_select(0, layout.row_slots)


def spread(x: Tensor, slots: Tensor, batch: int, width: int) -> Tensor:
    """Rows (n, ...) at their slots of a (batch, width, ...) array of zeros."""
    return x.new_zeros(batch * width, *x.shape[1:]).index_copy(0, slots, x).view(batch, width, *x.shape[1:])


def gather(table: Tensor, bucket: Tensor) -> Tensor:
    """The entries of a short table, in the shape of the buckets."""
    found: Tensor = _Gather.apply(table, bucket)  # type: ignore[no-untyped-call]
    return found


class _Gather(torch.autograd.Function):
    """bias[bucket], whose gradient is a sum for each bucket: to scatter millions into a few takes longer."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, bucket: Tensor) -> Tensor:
        ctx.save_for_backward(bucket)
        ctx.buckets = len(bias)
        return bias[bucket]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (bucket,) = ctx.saved_tensors
        zero = upstream.new_zeros(())
        return torch.stack([torch.where(bucket == k, upstream, zero).sum() for k in range(ctx.buckets)]), None
