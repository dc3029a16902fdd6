"""The correction of the softmax for repeats on the CPU: float32, sequence by sequence, no (B, T, L) array.

The backward pass computes the scores again. A sequence's rows and events belong to one thread; its share of
the bias's gradient has a row of its own, and rows are added in order.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.repeats import sweeps
from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.reference import LEAST_LEFT
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES

__all__ = ["repeat_correction"]

SHORT = 64
"""Sequences up to this length are not sorted."""


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
        layout.event_offsets,
        layout.row_offsets,
        layout.items,
        layout.visible,
        layout.following,
        layout.preceding,
        layout.places,
        layout.targets,
        sees_later,
        1.0 / temperature,
        1.0 - label_smoothing,
        label_smoothing / n_items,
    )[0]
    return correction


@torch.library.custom_op("recsys::repeat_correction_cpu", mutates_args=(), device_types="cpu")
def forward(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    added: Tensor,
    event_offsets: Tensor,
    row_offsets: Tensor,
    items: Tensor,
    visible: Tensor,
    following: Tensor,
    preceding: Tensor,
    places: Tensor,
    targets: Tensor,
    sees_later: bool,
    rate: float,
    own: float,
    even: float,
) -> tuple[Tensor, Tensor]:
    """Return the correction (M,) and what each row's sum gains (M,).

    float32, d a multiple of LANES; `added` (K,) is the bias at the temperature whose inverse `rate` is; the
    target's own weighs `own` in the loss and every one of the window `even`.
    """
    correction, gained = torch.empty(log_totals.shape), torch.empty(log_totals.shape)
    order, bounds, longest, steps = _pieces(event_offsets, row_offsets, hidden.shape[1])
    launch(
        sweeps.forward_worker,
        threads_for(len(order), steps),
        order,
        *bounds,
        longest,
        flat(hidden),
        flat(keys),
        hidden.shape[1],
        flat(log_totals),
        flat(torch.expm1(added)),
        flat(added),
        _buckets(longest, len(added)),
        *(x.contiguous().numpy() for x in (items, visible, following, preceding, places, targets)),
        sees_later,
        *(np.float32(x) for x in (rate, own, even, LEAST_LEFT - 1)),
        flat(gained),
        flat(correction),
    )
    return correction, gained


@forward.register_fake
def _(hidden: Tensor, keys: Tensor, log_totals: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(log_totals), torch.empty_like(log_totals)


@torch.library.custom_op("recsys::repeat_correction_cpu_backward", mutates_args=(), device_types="cpu")
def backward(
    grad: Tensor,
    gained: Tensor,
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    added: Tensor,
    event_offsets: Tensor,
    row_offsets: Tensor,
    items: Tensor,
    visible: Tensor,
    following: Tensor,
    preceding: Tensor,
    places: Tensor,
    targets: Tensor,
    sees_later: bool,
    rate: float,
    own: float,
    even: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of hidden, keys, log_totals and added."""
    d_hidden, d_keys, d_totals = (torch.empty(x.shape) for x in (hidden, keys, log_totals))
    order, bounds, longest, steps = _pieces(event_offsets, row_offsets, hidden.shape[1])
    d_added = np.zeros((len(event_offsets) - 1, len(added)), dtype=np.float32)
    launch(
        sweeps.backward_worker,
        threads_for(len(order), 3 * steps),
        order,
        *bounds,
        longest,
        flat(hidden),
        flat(keys),
        hidden.shape[1],
        flat(log_totals),
        flat(torch.expm1(added)),
        _buckets(longest, len(added)),
        *(x.contiguous().numpy() for x in (items, visible, following, preceding, places, targets)),
        sees_later,
        *(np.float32(x) for x in (rate, own, even, LEAST_LEFT - 1)),
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
    ctx.save_for_backward(output[1], *inputs[:12])
    ctx.options = inputs[12:]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 16
    return *backward(grad, *ctx.saved_tensors, *ctx.options), *(None,) * 12


forward.register_autograd(_differentiate, setup_context=_save)


def _pieces(
    event_offsets: Tensor, row_offsets: Tensor, width: int
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int32], NDArray[np.int32]], int, int]:
    """Return the sequences in order of work, the offsets, the most events of one, and the forward steps."""
    events, rows = event_offsets.numpy(), row_offsets.numpy()
    lengths, counts = np.diff(events).astype(np.int64), np.diff(rows).astype(np.int64)
    # Longest first, so that no thread begins one late; short ones stay in the order in which they lie.
    order = np.argsort(np.where(lengths > SHORT, -lengths, 0), kind="stable")
    order = order[(lengths + counts)[order] > 0]
    steps = 200 * (len(lengths) + int(counts.sum())) + int((lengths * counts).sum()) * (width + 32) // 16
    return order, (events, rows), int(lengths.max(initial=0)), steps


def _buckets(longest: int, count: int) -> NDArray[np.int64]:
    """Bucket of each distance that a sequence has: the place of its leading bit, exactly."""
    found: NDArray[np.int64] = np.frexp(np.arange(longest + 1))[1].astype(np.int64) - 1
    return found.clip(0, count - 1)
