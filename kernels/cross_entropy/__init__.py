"""Softmax cross-entropy over the whole catalog, fused with the item projection.

Read `reference` first, then `cpu` with `cpu_forward` (rows) and `cpu_backward` (items), the same by matrix
tiles in `cpu_tiles`, or `triton` with `triton_forward` and `triton_backward`.

Legend: N rows, V items, d width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recsys.kernels.cross_entropy import reference
from recsys.kernels.cross_entropy.call import LossCall
from recsys.kernels.cross_entropy.checks import check_options, check_targets, check_tensors
from recsys.kernels.shared.backends import BackendTable

__all__ = ["linear_cross_entropy"]

Loss = Callable[[LossCall], Tensor]
"""A backend: a scalar, or (N,) for "none"."""

_CAST = (torch.float32, torch.bfloat16, torch.float16)
"""What autocast casts; it leaves float64 alone."""


def _cpu() -> Loss:
    from recsys.kernels.cross_entropy import cpu

    return cpu.linear_cross_entropy


def _triton() -> Loss:
    from recsys.kernels.cross_entropy import triton

    return triton.linear_cross_entropy


BACKENDS = BackendTable[Loss](
    "cross_entropy", {"reference": lambda: reference.linear_cross_entropy, "cpu": _cpu, "triton": _triton}
)


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
    skip_small: bool = False,
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
        skip_small: whether the gradients may leave out softmax values below 1/32 of the dtype's spacing at 1
            (2^-12 for bfloat16, 2^-15 for float16, 2^-28 for float32). The loss, the target's term and that
            of label smoothing stay exact. "reference" leaves out each such value, "triton" whole tiles of
            them; "cpu" refuses.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        A scalar, or (N,) for "none", in the dtype of hidden. Differentiable once in hidden, item_weight and
        bias. Under `torch.autocast` the floating inputs are cast to its type first, as a linear layer's, and
        the loss is float32.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.

    Cost: 3 N V d multiply-adds with gradients, N V d without ("triton": 4 and 2 exponentials per logit with
    gradients, N V d and 1 without); memory O(N d + V d) and a chunk of logits ("cpu") or 64 MiB ("triton").
    Numerics: both accumulate in float32, in a fixed order: same bits every run, and a row's loss and gradient
    do not depend on its batch. "triton" multiplies float32 in full precision, without tensor cores.
    On a GPU targets are not checked: one out of range makes its row's loss NaN.
    Source: "cpu" chunks rows and takes the gradient in the forward pass, as in Liger-Kernel
    (Hsu et al. 2024, arXiv:2410.10989), with the chunk set by the cache and not by V / d; "triton" walks the
    catalog with a running maximum (Milakov and Gimelshein 2018, arXiv:1805.02867), as attention walks keys.
    """
    result = None
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype in _CAST:
        result, narrow = torch.float32, torch.get_autocast_dtype(hidden.device.type)
        hidden, item_weight = hidden.to(narrow), item_weight.to(narrow)
        bias = None if bias is None else bias.to(narrow)
    check_tensors(hidden, item_weight, targets, weight, bias)
    check_options(label_smoothing, temperature, reduction)
    compute = BACKENDS.load(BACKENDS.choose(backend, hidden))
    if targets.device.type == "cpu":
        check_targets(targets, item_weight.shape[0])
    loss = compute(
        LossCall(
            hidden, item_weight, targets, weight, label_smoothing, temperature, bias, reduction, skip_small
        )
    )
    return loss.to(result or hidden.dtype)
