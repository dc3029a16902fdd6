"""Sums of a table's rows by bags on the GPU: no atomics, the same bits always."""

import torch
from torch import Tensor

from recsys.kernels.bags.autograd import differentiable
from recsys.kernels.bags.layout import Transposed
from recsys.kernels.bags.triton_sums import sum_kernel
from recsys.kernels.shared.launching import architecture, choose_config, launch

__all__ = ["bag_vectors", "sums"]


def bag_vectors(
    table: Tensor, offsets: Tensor, rows: Tensor, weights: Tensor | None, transposed: Transposed | None
) -> Tensor:
    """Sum the rows of each bag; arguments as in the door, of which the float32 sums are rounded once."""
    return differentiable(sums, table, offsets, rows, weights, transposed)


def sums(table: Tensor, offsets: Tensor, rows: Tensor, weights: Tensor | None) -> Tensor:
    """Sum the rows of each bag, without a gradient; a program makes a slice of an output row.

    Args:
        table: (C, d).
        offsets: (M + 1,) int64.
        rows: (T,) int32.
        weights: (T,) float32 or None.
    """
    bags, width = len(offsets) - 1, table.shape[1]
    out = torch.empty(bags, width, device=table.device, dtype=table.dtype)
    config = choose_config("bags", "sum", architecture(table), width=width)
    slices = -(-width // config.blocks["BLOCK_D"])
    launch(
        sum_kernel,
        bags * slices,
        config,
        table.contiguous(),
        offsets.contiguous(),
        rows.contiguous(),
        None if weights is None else weights.contiguous(),
        out,
        width,
        slices,
    )
    return out
