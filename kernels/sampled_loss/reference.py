"""Sampled losses in plain PyTorch: the definitions that every backend is tested against.

z_t is the score of a row's target and z_j those of its negatives, divided by the temperature. A negative that
is the row's own target (an accidental hit) is excluded: its score is -inf.

Legend: N rows, K negatives, d width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.kernels.embedding import item_vectors
from recsys.kernels.sampled_loss.form import BCE, BPR, Arguments, Form

__all__ = ["row_losses", "sampled_loss"]


def sampled_loss(arguments: Arguments, form: Form) -> Tensor:
    """Compute the loss; the public functions have checked the arguments."""
    losses = row_losses(arguments, form)
    weight, reduction = arguments.weight, arguments.reduction
    if reduction == "none":
        return losses if weight is None else losses * weight
    total = losses.sum() if weight is None else (losses * weight).sum()
    if reduction == "sum":
        return total
    if weight is None:
        return total / max(len(losses), 1)
    mass = weight.sum()
    return total / mass.where(mass != 0.0, mass + 1)


def row_losses(arguments: Arguments, form: Form) -> Tensor:
    """Compute the loss of each row, (N,), in the dtype of hidden; differentiable in hidden and the items."""
    hidden, targets, negatives = arguments.hidden, arguments.targets, arguments.negatives
    log_q, target_log_q, temperature = arguments.log_q, arguments.target_log_q, arguments.temperature
    shared = negatives.dim() == 1
    vectors = item_vectors(
        arguments.items,
        torch.cat((targets, negatives.reshape(-1))),
        sparse=arguments.sparse,
        backend="reference",
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
