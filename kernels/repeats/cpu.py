"""The correction of the softmax for repeats on the CPU: float32, sequence by sequence, no (B, T, L) array."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.kernels.repeats.cpu_backward import backward_worker
from recsys.kernels.repeats.cpu_forward import forward_worker
from recsys.kernels.repeats.cpu_operators import CpuCorrection, bucket_table, task_order
from recsys.kernels.repeats.cpu_pairs import Batch
from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.reference import LEAST_LEFT
from recsys.kernels.shared.arrays import flat

__all__ = ["LAYOUT", "correction", "repeat_correction"]

LAYOUT = (
    "event_offsets",
    "row_offsets",
    "items",
    "visible",
    "following",
    "preceding",
    "places",
    "targets",
)
"""What the operators take of a `RepeatLayout`, in this order: an operator of PyTorch takes tensors."""


def repeat_correction(
    hidden: Tensor, keys: Tensor, log_totals: Tensor, bias: Tensor, layout: RepeatLayout, **options: Any
) -> Tensor:
    """Compute the correction of each row, float32; arguments as in `reference.repeat_correction`."""
    tensors = [getattr(layout, name) for name in LAYOUT]
    return correction(hidden, keys, log_totals, bias / options["temperature"], tensors, **options)


def _batch(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    added: Tensor,
    layout: list[Tensor],
    sees_later: bool,
    rate: float,
    own: float,
    even: float,
) -> tuple[Batch, int]:
    """Return what the compiled loops read, and the elementary steps of the forward pass."""
    arrays = [x.contiguous().numpy() for x in layout]
    events, rows, items, visible, following, preceding, places, targets = arrays
    lengths, counts = np.diff(events).astype(np.int64), np.diff(rows).astype(np.int64)
    longest, width = int(lengths.max(initial=0)), hidden.shape[1]
    steps = 200 * (len(lengths) + int(counts.sum())) + int((lengths * counts).sum()) * (width + 32) // 16
    batch = Batch(
        order=task_order(lengths, counts),
        event_bounds=events,
        row_bounds=rows,
        longest=longest,
        hidden=flat(hidden),
        keys=flat(keys),
        width=width,
        totals=flat(log_totals),
        growth=flat(torch.expm1(added)),
        added=flat(added),
        bucket_of=bucket_table(longest, len(added)),
        items=items,
        visible=visible,
        following=following,
        preceding=preceding,
        places=places,
        targets=targets,
        sees_later=sees_later,
        rate=np.float32(rate),
        own=np.float32(own),
        even=np.float32(even),
        least=np.float32(LEAST_LEFT - 1),
    )
    return batch, steps


correction = CpuCorrection("repeat_correction_cpu", _batch, forward_worker, backward_worker)
"""Takes the bias at the temperature."""
