"""Softmax over what was shown with the target, and over taking nothing of it."""

import torch
from torch import Tensor
from torch.nn import functional

from recsys.encoders.base import SequenceEncoder
from recsys.encoders.item_tower import ItemTower
from recsys.kernels.sampled_loss import sampled_softmax_loss
from recsys.training.precision import as_multiplied

__all__ = ["shown_loss"]


def shown_loss(
    encoder: SequenceEncoder,
    hidden: Tensor,
    targets: Tensor,
    slates: Tensor,
    taken: Tensor | None,
    weights: Tensor | None,
    temperature: float,
) -> Tensor:
    """Mean loss of M states whose targets were taken of slates, or of which nothing was taken.

    With z_j the scores of the slate's items, s = log(sum of exp(z_j)) and b the encoder's bias for taking
    nothing: -log(exp(z_t) / (exp(s) + exp(b))) where t was taken, and -log(exp(b) / (exp(s) + exp(b))) where
    nothing was. Without that bias exp(b) is 0.

    Args:
        encoder: whose items are scored.
        hidden: (M, D).
        targets: (M,) int64; of a slate of which nothing was taken any item of it.
        slates: (M, K) int64 items shown, padded with the target, which counts once.
        taken: (M,) bool, whether the target was taken; None where all were.
        weights: (M,) float32 how much each counts in the mean; None for all alike.
        temperature: above 0, divides the items' scores.

    Source: Eide et al. 2022 (arXiv:2104.15046), whose slates have an item for taking none.
    """
    table = encoder.scored_items
    losses = sampled_softmax_loss(
        hidden,
        table.items,
        table.places(targets),
        table.places(slates),
        temperature=temperature,
        weight=weights if encoder.no_click is None else None,
        reduction="mean" if encoder.no_click is None else "none",
        sparse=not isinstance(table, ItemTower),
    )
    if encoder.no_click is None:
        return losses
    with torch.autocast(hidden.device.type, enabled=False):
        own = (as_multiplied(hidden) * as_multiplied(table(targets))).sum(-1) / temperature
        lead = encoder.no_click - (losses + own)
        losses = losses + functional.softplus(lead)
        if taken is not None:
            losses = torch.where(taken, losses, functional.softplus(-lead))
        if weights is None:
            return losses.mean()
        return (losses * weights).sum() / weights.sum()
