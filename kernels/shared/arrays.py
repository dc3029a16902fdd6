"""Tensors as the 1-D arrays that compiled kernels take, and back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["add_up", "bits", "flat", "rows"]


def flat(x: Tensor | None) -> NDArray[np.float32]:
    """See a tensor as 1-D, copied if it is not contiguous; an absent one is empty."""
    return np.empty(0, np.float32) if x is None else x.detach().contiguous().view(-1).numpy()


def bits(x: Tensor) -> NDArray[np.uint16]:
    """See a contiguous bfloat16 tensor as 1-D uint16, for which numpy has a type."""
    return x.detach().view(torch.int16).view(-1).numpy().view(np.uint16)


def rows(x: Tensor | None) -> tuple[NDArray[np.float32], int]:
    """See a matrix as 1-D with a row stride; copied if its rows are not contiguous or overlap."""
    if x is None or x.numel() == 0:
        return np.empty(0, np.float32), 0
    if x.stride(1) != 1 or x.stride(0) < x.shape[1]:
        x = x.contiguous()
    row = x.stride(0)
    return x.detach().as_strided(((x.shape[0] - 1) * row + x.shape[1],), (1,)).numpy(), row


def add_up(parts: Tensor, total: Tensor) -> None:
    """Add the parts in order, one after another: the same bits whatever the number of threads.

    By numpy: sums this small gain nothing from PyTorch's threads, which then spin beside the next kernel's.
    """
    out = total.numpy()
    out.fill(0)
    for part in parts.numpy():
        np.add(out, part, out=out)
