"""AdamW on some rows of a table, in plain PyTorch: the definition."""

import torch
from torch import Tensor

__all__ = ["update_rows"]


def update_rows(
    weight: Tensor,
    mean: Tensor,
    square: Tensor,
    ids: Tensor,
    gradient: Tensor,
    *,
    step_size: float,
    beta1: float,
    beta2: float,
    root: float,
    epsilon: float,
    keep: float,
) -> None:
    """Update rows `ids` in place; `root` is 1 / sqrt(1 - beta2^t), `keep` 1 - lr decay."""
    m = torch.lerp(mean[ids], gradient, 1 - beta1)
    v = square[ids] * beta2 + gradient * gradient * (1 - beta2)
    weight.index_copy_(0, ids, weight[ids] * keep - step_size * m / (v.sqrt() * root + epsilon))
    mean.index_copy_(0, ids, m)
    square.index_copy_(0, ids, v)
