"""The correction of the softmax for repeats on the CPU: float32, sequence by sequence, no (B, T, L) array.

The backward pass computes the scores again. A sequence's rows and events belong to one thread; its share of
the bias's gradient has a row of its own, and rows are added in order.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.repeats.cpu_backward import backward_worker
from recsys.kernels.repeats.cpu_forward import forward_worker
from recsys.kernels.repeats.cpu_pairs import Batch
from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.reference import LEAST_LEFT
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES

__all__ = ["bucket_table", "repeat_correction", "task_order"]

SHORT = 64
"""Sequences up to this length are not sorted."""

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
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    bias: Tensor,
    layout: RepeatLayout,
    *,
    sees_later: bool,
    n_items: int,
    label_smoothing: float,
    temperature: float,
) -> Tensor:
    """Compute the correction of each row, float32; arguments as in `reference.repeat_correction`."""
    pad = -hidden.shape[1] % LANES
    if pad:
        hidden, keys = (torch.nn.functional.pad(x, (0, pad)) for x in (hidden, keys))
    correction: Tensor = forward(
        hidden,
        keys,
        log_totals,
        bias / temperature,
        [getattr(layout, name) for name in LAYOUT],
        sees_later,
        1.0 / temperature,
        1.0 - label_smoothing,
        label_smoothing / n_items,
    )[0]
    return correction


@cpu_operator("recsys::repeat_correction_cpu")
def forward(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    added: Tensor,
    layout: list[Tensor],
    sees_later: bool,
    rate: float,
    own: float,
    even: float,
) -> tuple[Tensor, Tensor]:
    """Return the correction (M,) and what each row's sum gains (M,).

    float32, d a multiple of LANES; `layout`: see `LAYOUT`; `added` (K,) is the bias at the temperature whose
    inverse `rate` is; the target's own weighs `own` in the loss and every one of the window `even`.
    """
    correction, gained = torch.empty(log_totals.shape), torch.empty(log_totals.shape)
    batch, steps = _batch(hidden, keys, log_totals, added, layout, sees_later, rate, own, even)
    launch(forward_worker, threads_for(len(batch.order), steps), batch, flat(gained), flat(correction))
    return correction, gained


@forward.register_fake
def _(hidden: Tensor, keys: Tensor, log_totals: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(log_totals), torch.empty_like(log_totals)


@cpu_operator("recsys::repeat_correction_cpu_backward")
def backward(
    grad: Tensor,
    gained: Tensor,
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    added: Tensor,
    layout: list[Tensor],
    sees_later: bool,
    rate: float,
    own: float,
    even: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of hidden, keys, log_totals and added."""
    d_hidden, d_keys, d_totals = (torch.empty(x.shape) for x in (hidden, keys, log_totals))
    batch, steps = _batch(hidden, keys, log_totals, added, layout, sees_later, rate, own, even)
    d_added = np.zeros((len(batch.event_bounds) - 1, len(added)), dtype=np.float32)
    launch(
        backward_worker,
        threads_for(len(batch.order), 3 * steps),
        batch,
        flat(gained),
        flat(grad),
        flat(d_hidden),
        flat(d_keys),
        flat(d_totals),
        d_added.reshape(-1),
    )
    # By numpy, on this thread: an order of sums that the shape sets.
    total = d_added.sum(0, dtype=np.float64).astype(np.float32)
    return d_hidden, d_keys, d_totals, torch.from_numpy(total)


@backward.register_fake
def _(
    grad: Tensor, gained: Tensor, hidden: Tensor, keys: Tensor, log_totals: Tensor, added: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden_, keys_, totals, added_ = (torch.empty_like(x) for x in (hidden, keys, log_totals, added))
    return hidden_, keys_, totals, added_


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, layout = inputs[:5]
    ctx.save_for_backward(output[1], *tensors, *layout)
    ctx.options = inputs[5:]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    none = [None] * len(LAYOUT), None, None, None, None
    if grad is None:
        return None, None, None, None, *none
    gained, hidden, keys, log_totals, added, *layout = ctx.saved_tensors
    return *backward(grad, gained, hidden, keys, log_totals, added, layout, *ctx.options), *none


forward.register_autograd(_differentiate, setup_context=_save)


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


def task_order(lengths: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sequences with events or rows, longest first, so that no thread begins one late.

    Short ones stay in the order in which they lie.
    """
    order = np.argsort(np.where(lengths > SHORT, -lengths, 0), kind="stable")
    return order[(lengths + counts)[order] > 0]


def bucket_table(longest: int, count: int) -> NDArray[np.int64]:
    """Bucket of each distance that a sequence has: the place of its leading bit, exactly."""
    found: NDArray[np.int64] = np.frexp(np.arange(longest + 1))[1].astype(np.int64) - 1
    return found.clip(0, count - 1)
