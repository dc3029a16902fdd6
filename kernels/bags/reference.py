"""Sums of a table's rows by bags in plain PyTorch: the definition, forward and backward."""

import torch
from torch import Tensor

from recsys.kernels.bags.layout import Transposed

__all__ = ["bag_vectors"]


def bag_vectors(
    table: Tensor, offsets: Tensor, rows: Tensor, weights: Tensor | None, transposed: Transposed | None
) -> Tensor:
    """Row m is the sum over entries t of bag m of weights[t] * table[rows[t]].

    Every device and float type; `transposed` is of no use here.
    """
    bags = len(offsets) - 1
    owners = torch.repeat_interleave(torch.arange(bags, device=rows.device), offsets.long().diff())
    found = table[rows.long()]
    if weights is not None:
        found = found * weights[:, None].to(found.dtype)
    return found.new_zeros(bags, table.shape[1]).index_add(0, owners, found)
