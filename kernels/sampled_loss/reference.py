"""Sampled losses in plain PyTorch: the definitions that every backend is tested against.

z_t is the score of a row's target and z_j those of its negatives, divided by the temperature. A negative that
is the row's own target (an accidental hit) is left out: its score is -inf.

Legend: N rows, K negatives, d width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.kernels.embedding import Items, item_vectors
from recsys.kernels.sampled_loss.form import BCE, BPR, Form

__all__ = ["row_losses", "sampled_loss"]


def sampled_loss(
    hidden: Tensor,
    items: Items,
    targets: Tensor,
    negatives: Tensor,
    *,
    form: Form,
    log_q: Tensor | None,
    target_log_q: Tensor | None,
    temperature: float,
    sparse: bool,
    weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """Compute the loss; arguments as in the public functions, which have checked them."""
    losses = row_losses(
        hidden,
        items,
        targets,
        negatives,
        form=form,
        log_q=log_q,
        target_log_q=target_log_q,
        temperature=temperature,
        sparse=sparse,
    )
    if reduction == "none":
        return losses if weight is None else losses * weight
    total = losses.sum() if weight is None else (losses * weight).sum()
    if reduction == "sum":
        return total
    if weight is None:
        return total / max(len(losses), 1)
    mass = weight.sum()
    return total / mass.where(mass != 0.0, mass + 1)


def row_losses(
    hidden: Tensor,
    items: Items,
    targets: Tensor,
    negatives: Tensor,
    *,
    form: Form,
    log_q: Tensor | None,
    target_log_q: Tensor | None,
    temperature: float,
    sparse: bool,
) -> Tensor:
    """Compute the loss of each row, (N,), in the dtype of hidden; differentiable in hidden and the items."""
    shared = negatives.dim() == 1
    vectors = item_vectors(
        items, torch.cat((targets, negatives.reshape(-1))), sparse=sparse, backend="reference"
    )
    target_vectors, others = vectors[: len(targets)], vectors[len(targets) :]
    positive = (hidden * target_vectors).sum(1) / temperature
    if shared:
        scores = hidden @ others.T / temperature
    else:
        scores = (
            torch.einsum("nd,nkd->nk", hidden, others.view(*negatives.shape, hidden.shape[1])) / temperature
        )
    hit = negatives == targets[:, None]
    masked = scores.masked_fill(hit, -torch.inf)
    if form.kind == BCE:
        return (form.beta * F.softplus(-positive) + F.softplus(masked).sum(1)) / (negatives.shape[-1] + 1)
    if form.kind == BPR:
        return F.softplus(masked - positive[:, None]).mean(1)
    corrected = masked if log_q is None else masked - log_q
    own = positive if target_log_q is None else positive - target_log_q
    losses = torch.cat((own[:, None], corrected), 1).logsumexp(1) - own
    if form.smoothing:
        left = (~hit).sum(1)
        mean = scores.masked_fill(hit, 0.0).sum(1) / left.clamp(min=1)
        losses = losses + form.smoothing * torch.where(left > 0, own - mean, torch.zeros_like(own))
    return losses
