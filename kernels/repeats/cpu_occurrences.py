"""The correction of the softmax where every occurrence has a weight, on the CPU: float32, by sequences.

Exponentials are taken once a call, so that a pair's weight is a product of entries of short tables.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.kernels.repeats.cpu_occurrence_backward import backward_worker
from recsys.kernels.repeats.cpu_occurrence_forward import forward_worker
from recsys.kernels.repeats.cpu_occurrence_pairs import AGE_BLOCK, OccurrenceBatch
from recsys.kernels.repeats.cpu_operators import CpuCorrection, bucket_table, task_order
from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.occurrences import AGES, CLOCK, DAY_QUARTERS, HOURS, clock_buckets
from recsys.kernels.repeats.reference import LEAST_LEFT
from recsys.kernels.shared.arrays import flat

__all__ = ["correction", "layout_tensors", "occurrence_correction"]

_NO_TIMES = torch.zeros(0, dtype=torch.int32)


def layout_tensors(layout: RepeatLayout) -> list[Tensor]:
    """What the operators take of a layout: an operator of PyTorch takes tensors."""
    own = layout.occurrences
    assert own is not None
    names = ("event_offsets", "row_offsets", "items", "visible", "places", "targets")
    times = (_NO_TIMES if x is None else x for x in (own.event_quarters, own.row_quarters))
    return [*(getattr(layout, name) for name in names), own.first, *times]


def occurrence_correction(
    hidden: Tensor, keys: Tensor, log_totals: Tensor, weights: Tensor, layout: RepeatLayout, **options: Any
) -> Tensor:
    """Compute the correction of each row, float32; arguments as in the reference."""
    return correction(hidden, keys, log_totals, weights, layout_tensors(layout), **options)


def _batch(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    weights: Tensor,
    layout: list[Tensor],
    sees_later: bool,
    rate: float,
    own: float,
    even: float,
) -> tuple[OccurrenceBatch, int]:
    """Return what the compiled loops read, and the elementary steps of the forward pass."""
    arrays = [x.contiguous().numpy() for x in layout]
    events, rows, items, visible, places, targets, first, event_quarters, row_quarters = arrays
    lengths, counts = np.diff(events).astype(np.int64), np.diff(rows).astype(np.int64)
    longest, width = int(lengths.max(initial=0)), hidden.shape[1]
    clocked = len(event_quarters) > 0
    n_distances = len(weights) - CLOCK if clocked else len(weights)
    grown = flat(torch.exp(weights))
    by_distance, by_hour, by_age, by_day = np.split(grown, n_distances + np.cumsum([0, HOURS, AGES]))
    steps = 200 * (len(lengths) + int(counts.sum())) + int((lengths * counts).sum()) * (width + 80) // 16
    batch = OccurrenceBatch(
        order=task_order(lengths, counts),
        event_bounds=events,
        row_bounds=rows,
        longest=longest,
        hidden=flat(hidden),
        keys=flat(keys),
        width=width,
        totals=flat(log_totals),
        by_distance=by_distance,
        by_hour=by_hour,
        by_age=by_age,
        by_day=by_day,
        bucket_of=bucket_table(longest, n_distances),
        hour_of=_HOUR_OF,
        age_of=_AGE_OF,
        old_age_of=_OLD_AGE_OF,
        items=items,
        visible=visible,
        first=first,
        places=places,
        targets=targets,
        event_quarters=event_quarters,
        row_quarters=row_quarters,
        clocked=clocked,
        sees_later=sees_later,
        powered=rate != 1.0,
        rate=np.float32(rate),
        own=np.float32(own),
        even=np.float32(even),
        least=np.float32(LEAST_LEFT - 1),
    )
    return batch, steps


_HOUR_OF, _AGE_OF = (
    x.numpy().astype(np.int64)
    for x in (
        clock_buckets(torch.arange(DAY_QUARTERS, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))[0],
        clock_buckets(torch.arange(AGE_BLOCK, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))[1],
    )
)
"""Bucket of each difference of two times of day, and of each age below AGE_BLOCK, in quarter hours."""
_OLD_AGE_OF = clock_buckets(
    AGE_BLOCK * torch.arange(2 ** (AGES - 1) // AGE_BLOCK + 1, dtype=torch.int32),
    torch.zeros(1, dtype=torch.int32),
)[1].numpy().astype(np.int64)  # fmt: skip
"""The same of blocks of AGE_BLOCK, within which the bucket is one; the last one for all beyond."""

correction = CpuCorrection("occurrence_correction_cpu", _batch, forward_worker, backward_worker)
