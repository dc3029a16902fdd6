"""Linear cross-entropy in plain PyTorch: the definition that every backend is tested against.

z = (h W^T + b) / temperature;  loss_i = logsumexp(z_i) - (1 - eps) z_i[t_i] - eps mean(z_i).

Legend: N rows, V items, d width. This form holds the (N, V) logits in memory.
"""

import torch
from torch import Tensor


def smallest_share(dtype: torch.dtype) -> float:
    """Softmax value below which `skip_small` may skip: 1/32 of the type's spacing at 1, 2^-12 for bfloat16.

    As in Cut Cross-Entropy (Wijmans et al. 2024, arXiv:2411.09009).
    """
    return torch.finfo(dtype).eps / 32


def linear_cross_entropy(
    hidden: Tensor,
    item_weight: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None,
    label_smoothing: float,
    temperature: float,
    bias: Tensor | None,
    reduction: str,
    skip_small: bool = False,
) -> Tensor:
    """Compute the softmax loss over the whole catalog in the dtype of the inputs.

    Args:
        hidden: (N, d), any floating dtype.
        item_weight: (V, d), dtype of hidden.
        targets: (N,) int64 in [0, V).
        weight: (N,) row weights or None.
        label_smoothing: eps in [0, 1].
        temperature: divides the logits.
        bias: (V,) or None, added before the division.
        reduction: "mean", "sum" or "none".
        skip_small: leave softmax values below `smallest_share` out of the gradients, not out of the loss.

    Returns:
        A scalar, or (N,) for "none". Differentiable in hidden, item_weight, weight and bias.
    """
    logits = hidden @ item_weight.T
    if bias is not None:
        logits = logits + bias
    logits = logits / temperature
    target_logits = logits.gather(1, targets[:, None]).squeeze(1)
    normalizers = logits.logsumexp(dim=1)
    if skip_small:
        shares = (logits - normalizers[:, None]).exp().detach()
        shares = shares.masked_fill(shares < smallest_share(hidden.dtype), 0.0)
        # The same value, with `shares` for its derivative in the logits.
        normalizers = normalizers.detach() + (shares * (logits - logits.detach())).sum(dim=1)
    losses = normalizers - (1.0 - label_smoothing) * target_logits
    if label_smoothing > 0.0:
        losses = losses - label_smoothing * logits.mean(dim=1)
    weights = torch.ones_like(losses) if weight is None else weight
    losses = losses * weights
    if reduction == "none":
        return losses
    total = losses.sum()
    if reduction == "sum":
        return total
    mass = weights.sum()
    # No weight at all (an empty batch, or all weights zero) is a loss of 0, not 0 / 0.
    return total / torch.where(mass == 0.0, torch.ones_like(mass), mass)
