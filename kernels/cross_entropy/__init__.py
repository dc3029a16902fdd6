"""Softmax cross-entropy over the whole catalog, fused with the item projection.

Legend: N rows, V items, d width.
"""

from torch import Tensor

from recsys.kernels.backend import choose_backend
from recsys.kernels.cross_entropy import reference
from recsys.kernels.cross_entropy.checks import check_options, check_targets, check_tensors

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    hidden: Tensor,
    item_weight: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> Tensor:
    """Compute the full-softmax loss of each row without holding the (N, V) logits.

    z = (h W^T + b) / temperature;  loss_i = logsumexp(z_i) - (1 - eps) z_i[t_i] - eps mean(z_i),
    eps the label smoothing.

    Args:
        hidden: (N, d) float32, float64, bfloat16 or float16.
        item_weight: (V, d), dtype of hidden; one row per item.
        targets: (N,) int64 in [0, V). Rows to be ignored are simply not passed.
        weight: (N,) floating, >= 0, row weights, or None for ones. Data: takes no gradient.
        label_smoothing: share of the target spread evenly over the catalog, in [0, 1].
        temperature: > 0, divides the logits.
        bias: (V,), dtype of hidden, or None.
        reduction: "mean" (sum of weight * loss over sum of weight; 0 when no weight), "sum" or "none"
            (weight * loss of each row).
        backend: "reference", "cpu" or None to choose by device.

    Returns:
        A scalar, or (N,) for "none". Differentiable once in hidden, item_weight and bias.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.

    Cost: 6 N V d multiply-adds with gradients, 2 N V d without; memory O(N d + V d + chunk V) ("cpu").
    Numerics: "cpu" computes and accumulates in float32, in a fixed order: same bits every run.
    Source: chunking with the gradient taken in the forward pass, as in Liger-Kernel
    (Hsu et al. 2024, arXiv:2410.10989), with the chunk set by the cache and not by V / d.
    """
    check_tensors(hidden, item_weight, targets, weight, bias)
    check_options(label_smoothing, temperature, reduction)
    if choose_backend("cross_entropy", backend, hidden) == "cpu":
        from recsys.kernels.cross_entropy import cpu

        compute = cpu.linear_cross_entropy
    else:
        if targets.device.type == "cpu":
            check_targets(targets, item_weight.shape[0])
        compute = reference.linear_cross_entropy
    return compute(
        hidden,
        item_weight,
        targets,
        weight=weight,
        label_smoothing=label_smoothing,
        temperature=temperature,
        bias=bias,
        reduction=reduction,
    )
