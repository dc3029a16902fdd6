"""Sums of a table's rows by bags on the CPU."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.bags.autograd import differentiable
from recsys.kernels.bags.cpu_sums import sum_worker
from recsys.kernels.bags.layout import Transposed
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.threads import launch, threads_for

__all__ = ["bag_vectors"]

TASK_ENTRIES = 2048
"""Entries of a task of work; a longer bag makes a larger one."""


def bag_vectors(
    table: Tensor, offsets: Tensor, rows: Tensor, weights: Tensor | None, transposed: Transposed | None
) -> Tensor:
    """Sum the rows of each bag; arguments as in the door, of which the float32 sums are rounded once."""
    return differentiable(_sums, table, offsets, rows, weights, transposed)


def _sums(table: Tensor, offsets: Tensor, rows: Tensor, weights: Tensor | None) -> Tensor:
    bags, width = len(offsets) - 1, table.shape[1]
    out = torch.empty(bags, width)
    bounds = _tasks(offsets.numpy())
    launch(
        sum_worker,
        threads_for(len(bounds) - 1, (len(rows) + bags) * (width + 16)),
        bounds,
        offsets.contiguous().numpy(),
        rows.contiguous().numpy(),
        flat(weights),
        flat(table.float()),
        width,
        flat(out),
    )
    return out.to(table.dtype)


def _tasks(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bags at which tasks begin: (tasks + 1,) int64; bags and entries both count as work."""
    bags = len(offsets) - 1
    work = offsets + np.arange(bags + 1)
    multiples = np.arange(TASK_ENTRIES, work[-1], TASK_ENTRIES)
    bounds = np.concatenate(([0], np.searchsorted(work, multiples), [bags]))
    return np.unique(bounds).astype(np.int64)
