"""The correction of the softmax where every occurrence has a weight, on the CPU: float32, by sequences.

As in `cpu`, the backward pass computes the scores again, and a sequence belongs to one thread. Exponentials
are taken once a call, so that a pair's weight is a product of entries of short tables.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.kernels.repeats.cpu import bucket_table, task_order
from recsys.kernels.repeats.cpu_occurrence_backward import backward_worker
from recsys.kernels.repeats.cpu_occurrence_forward import forward_worker
from recsys.kernels.repeats.cpu_occurrence_pairs import AGE_BLOCK, OccurrenceBatch
from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.occurrences import AGES, CLOCK, DAY_QUARTERS, HOURS, clock_buckets
from recsys.kernels.repeats.reference import LEAST_LEFT
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES

__all__ = ["layout_tensors", "occurrence_correction"]

_NO_TIMES = torch.zeros(0, dtype=torch.int32)


def layout_tensors(layout: RepeatLayout) -> list[Tensor]:
    """What the operators take of a layout: an operator of PyTorch takes tensors."""
    own = layout.occurrences
    assert own is not None
    names = ("event_offsets", "row_offsets", "items", "visible", "places", "targets")
    times = (_NO_TIMES if x is None else x for x in (own.event_quarters, own.row_quarters))
    return [*(getattr(layout, name) for name in names), own.first, *times]


def occurrence_correction(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    weights: Tensor,
    layout: RepeatLayout,
    *,
    sees_later: bool,
    n_items: int,
    label_smoothing: float,
    temperature: float,
) -> Tensor:
    """Compute the correction of each row, float32; arguments as in the reference."""
    pad = -hidden.shape[1] % LANES
    if pad:
        hidden, keys = (torch.nn.functional.pad(x, (0, pad)) for x in (hidden, keys))
    correction: Tensor = forward(
        hidden,
        keys,
        log_totals,
        weights,
        layout_tensors(layout),
        sees_later,
        1.0 / temperature,
        1.0 - label_smoothing,
        label_smoothing / n_items,
    )[0]
    return correction


@cpu_operator("recsys::occurrence_correction_cpu")
def forward(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    weights: Tensor,
    layout: list[Tensor],
    sees_later: bool,
    rate: float,
    own: float,
    even: float,
) -> tuple[Tensor, Tensor]:
    """Return the correction (M,) and what each row's sum gains (M,).

    float32, d a multiple of LANES; `layout`: see `layout_tensors`; `rate` is the temperature's inverse; the
    target's own bias weighs `own` in the loss and every one of the window `even`.
    """
    correction, gained = torch.empty(log_totals.shape), torch.empty(log_totals.shape)
    batch, steps = _batch(hidden, keys, log_totals, weights, layout, sees_later, rate, own, even)
    launch(forward_worker, threads_for(len(batch.order), steps), batch, flat(gained), flat(correction))
    return correction, gained


@forward.register_fake
def _(hidden: Tensor, keys: Tensor, log_totals: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(log_totals), torch.empty_like(log_totals)


@cpu_operator("recsys::occurrence_correction_cpu_backward")
def backward(
    grad: Tensor,
    gained: Tensor,
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    weights: Tensor,
    layout: list[Tensor],
    sees_later: bool,
    rate: float,
    own: float,
    even: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of hidden, keys, log_totals and weights."""
    d_hidden, d_keys, d_totals = (torch.empty(x.shape) for x in (hidden, keys, log_totals))
    batch, steps = _batch(hidden, keys, log_totals, weights, layout, sees_later, rate, own, even)
    d_weights = np.zeros((len(batch.event_bounds) - 1, len(weights)), dtype=np.float32)
    launch(
        backward_worker,
        threads_for(len(batch.order), 3 * steps),
        batch,
        flat(gained),
        flat(grad),
        flat(d_hidden),
        flat(d_keys),
        flat(d_totals),
        d_weights.reshape(-1),
    )
    # By numpy, on this thread: an order of sums that the shape sets.
    return d_hidden, d_keys, d_totals, torch.from_numpy(d_weights.sum(0, dtype=np.float64).astype(np.float32))


@backward.register_fake
def _(
    grad: Tensor, gained: Tensor, hidden: Tensor, keys: Tensor, log_totals: Tensor, weights: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden_, keys_, totals, weights_ = (torch.empty_like(x) for x in (hidden, keys, log_totals, weights))
    return hidden_, keys_, totals, weights_


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, layout = inputs[:5]
    ctx.save_for_backward(output[1], *tensors, *layout)
    ctx.options = inputs[5:]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    gained, hidden, keys, log_totals, weights, *layout = ctx.saved_tensors
    none = [None] * len(layout), None, None, None, None
    if grad is None:
        return None, None, None, None, *none
    return *backward(grad, gained, hidden, keys, log_totals, weights, layout, *ctx.options), *none


forward.register_autograd(_differentiate, setup_context=_save)


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
