"""Linear cross-entropy in plain PyTorch: the definition that every backend is tested against.

z = (h W^T + b) / temperature;  loss_i = logsumexp(z_i) - (1 - eps) z_i[t_i] - eps mean(z_i).

Legend: N rows, V items, d width. This form holds the (N, V) logits in memory.
"""

import torch
from torch import Tensor

from recsys.kernels.cross_entropy.call import LossCall


def smallest_share(dtype: torch.dtype) -> float:
    """Softmax value below which `skip_small` may skip: 1/32 of the type's spacing at 1, 2^-12 for bfloat16.

    As in Cut Cross-Entropy (Wijmans et al. 2024, arXiv:2411.09009).
    """
    return torch.finfo(dtype).eps / 32


def linear_cross_entropy(call: LossCall) -> Tensor:
    """Compute the softmax loss over the whole catalog in the dtype of the inputs.

    `skip_small` leaves softmax values below `smallest_share` out of the gradients, not out of the loss.

    Returns:
        A scalar, or (N,) for "none". Differentiable in hidden, item_weight, weight and bias.
    """
    logits = call.hidden @ call.item_weight.T
    if call.bias is not None:
        logits = logits + call.bias
    logits = logits / call.temperature
    target_logits = logits.gather(1, call.targets[:, None]).squeeze(1)
    normalizers = logits.logsumexp(dim=1)
    if call.skip_small:
        shares = (logits - normalizers[:, None]).exp().detach()
        shares = shares.masked_fill(shares < smallest_share(call.hidden.dtype), 0.0)
        # The same value, with `shares` for its derivative in the logits.
        normalizers = normalizers.detach() + (shares * (logits - logits.detach())).sum(dim=1)
    losses = normalizers - (1.0 - call.label_smoothing) * target_logits
    if call.label_smoothing > 0.0:
        losses = losses - call.label_smoothing * logits.mean(dim=1)
    weights = torch.ones_like(losses) if call.weight is None else call.weight
    losses = losses * weights
    if call.reduction == "none":
        return losses
    total = losses.sum()
    if call.reduction == "sum":
        return total
    mass = weights.sum()
    # No weight at all (an empty batch, or all weights zero) is a loss of 0, not 0 / 0.
    return total / torch.where(mass == 0.0, torch.ones_like(mass), mass)
