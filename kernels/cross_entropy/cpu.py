"""Linear cross-entropy on the CPU: float32, chunks of rows whose softmax feeds both gradients while in cache.

bfloat16 goes to `cpu_tiles` where the processor multiplies it itself, and is widened elsewhere.

The gradients are ready when the loss is and the backward pass only scales them, unless losses are wanted row
by row: then the rows' upstream gradients must enter before rows are summed, and the chunks are gone through
again.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.cross_entropy import cpu_backward, cpu_forward, cpu_tiles
from recsys.kernels.cross_entropy.call import LossCall
from recsys.kernels.cross_entropy.checks import check_targets
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES, tiles
from recsys.kernels.shared.vector.tiles import tiles_available

CHUNK_LOGITS = 1 << 22
"""Exponentials kept at once, 16 MiB: they are read back from the last-level cache."""

MOST_ROWS = 1024


def linear_cross_entropy(call: LossCall) -> Tensor:
    """Compute the loss in float32.

    Raises:
        ArgumentError: `skip_small` is wanted.
    """
    if call.skip_small:
        raise ArgumentError("linear_cross_entropy: skip_small saves nothing on the CPU: leave it off")
    narrow = call.hidden.dtype == torch.bfloat16 and tiles_available()
    h, w = (x if narrow else x.float() for x in (call.hidden, call.item_weight))
    b = None if call.bias is None else call.bias.float()
    pad = -h.shape[1] % (tiles.BLOCK if narrow else LANES)
    if pad:
        h, w = (torch.nn.functional.pad(x, (0, pad)) for x in (h, w))
    rate = 1.0 / call.temperature
    scale = torch.ones(h.shape[0]) if call.weight is None else call.weight.float()
    if call.reduction == "none":
        losses: Tensor = row_losses(h, w, b, call.targets, scale, call.label_smoothing, rate)
        return losses
    if call.reduction == "mean":
        mass = scale.sum(dtype=torch.float64)
        scale = (scale / torch.where(mass == 0.0, 1.0, mass)).float()
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (h, w, b))
    loss: Tensor = summed_loss(h, w, b, call.targets, scale, call.label_smoothing, rate, wanted)[0]
    return loss


@cpu_operator("recsys::linear_cross_entropy_cpu")
def summed_loss(
    h: Tensor,
    w: Tensor,
    b: Tensor | None,
    targets: Tensor,
    scale: Tensor,
    smoothing: float,
    rate: float,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the sum of scale * loss over rows and, where wanted, its gradients in h, w and b (or empty).

    `rate` is 1 / temperature. h and w are float32 and d a multiple of LANES, or bfloat16, for matrix tiles,
    and d a multiple of 32; all else is float32.
    """
    losses, *gradients = _losses_and_gradients(h, w, b, targets, scale, smoothing, rate, wanted)
    return (losses * scale).sum(), *gradients  # type: ignore[return-value]


@summed_loss.register_fake
def _(
    h: Tensor,
    w: Tensor,
    b: Tensor | None,
    targets: Tensor,
    scale: Tensor,
    smoothing: float,
    rate: float,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return h.new_empty((), dtype=torch.float32), *_gradients(h, w, b, wanted)


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.biased = inputs[2] is not None
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _scale_gradients(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return (None,) * 8
    d_h, d_w, d_b = (g * upstream for g in ctx.saved_tensors)
    return d_h, d_w, d_b if ctx.biased else None, None, None, None, None, None


summed_loss.register_autograd(_scale_gradients, setup_context=_save_gradients)


@cpu_operator("recsys::linear_cross_entropy_rows_cpu")
def row_losses(
    h: Tensor, w: Tensor, b: Tensor | None, targets: Tensor, scale: Tensor, smoothing: float, rate: float
) -> Tensor:
    """Return scale * loss of each row; arguments as in `summed_loss`."""
    return _losses_and_gradients(h, w, b, targets, scale, smoothing, rate, False)[0] * scale


@row_losses.register_fake
def _(
    h: Tensor, w: Tensor, b: Tensor | None, targets: Tensor, scale: Tensor, smoothing: float, rate: float
) -> Tensor:
    return h.new_empty(h.shape[:1], dtype=torch.float32)


def _save_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.options = inputs[5:]


def _differentiate_rows(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    h, w, b, targets, scale = ctx.saved_tensors
    _, d_h, d_w, d_b = summed_loss(h, w, b, targets, scale * upstream, *ctx.options, True)
    return d_h, d_w, None if b is None else d_b, None, None, None, None


row_losses.register_autograd(_differentiate_rows, setup_context=_save_rows)


def _gradients(h: Tensor, w: Tensor, b: Tensor | None, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (h.shape, w.shape, (0,) if b is None else b.shape) if wanted else ((0,),) * 3
    d_h, d_w, d_b = (h.new_empty(shape, dtype=torch.float32) for shape in shapes)
    return d_h, d_w, d_b


def _losses_and_gradients(
    h: Tensor,
    w: Tensor,
    b: Tensor | None,
    targets: Tensor,
    scale: Tensor,
    smoothing: float,
    rate: float,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute losses (N,) and, where wanted, the gradients of the sum of scale * loss.

    Every sum has an order set by the shapes, so threads do not change a bit.
    """
    n, width = h.shape
    items = w.shape[0]
    check_targets(targets, items)
    if n and h.dtype == torch.bfloat16:
        return cpu_tiles.losses_and_gradients(h, w, b, targets, scale, smoothing, rate, wanted)
    losses = h.new_empty(n, dtype=torch.float32)
    d_h, d_w, d_b = _gradients(h, w, b, wanted)
    if n == 0:
        return losses, d_h, d_w.zero_(), d_b.zero_()
    d_b.zero_()
    chunk = min(max(CHUNK_LOGITS // items, cpu_forward.MOST_LANES), MOST_ROWS)
    chunk -= chunk % cpu_forward.MOST_LANES
    if not wanted:
        chunk = n
    lanes = cpu_forward.MOST_LANES
    while lanes > LANES and min(chunk, n) < 2 * lanes * torch.get_num_threads():
        lanes //= 2
    most = -(-min(chunk, n) // lanes)  # groups of a chunk
    blocks = -(-items // cpu_forward.BLOCK)
    kept = (most * items * lanes, most * blocks * lanes, n, n) if wanted else (0, 0, 0, 0)
    tiles, references, largest, inverse = (np.empty(size, dtype=np.float32) for size in kept)
    flat_h, flat_w, scales = flat(h), flat(w), flat(scale)
    flat_b = np.empty(0, dtype=np.float32) if b is None else flat(b)
    ids = targets.contiguous().numpy()
    mean_item = flat(w.mean(0) if smoothing > 0 else h.new_zeros(width))
    options = np.float32(rate), np.float32(smoothing)
    for first in range(0, n, chunk):
        last = min(first + chunk, n)
        groups = -(-(last - first) // lanes)
        steps = (last - first) * items * width // 15
        launch(
            cpu_forward.rows_worker,
            threads_for(groups, 2 * steps),
            lanes,
            first,
            last,
            flat_h,
            flat_w,
            flat_b,
            ids,
            scales,
            mean_item,
            width,
            *options,
            tiles,
            references,
            losses.numpy(),
            largest,
            inverse,
            flat(d_h),
        )
        if not wanted:
            continue
        launch(
            cpu_backward.items_worker,
            threads_for(blocks, steps),
            lanes,
            first,
            last,
            flat_h,
            ids,
            scales,
            width,
            *options,
            tiles,
            references,
            largest,
            inverse,
            flat(d_w),
            flat(d_b),
        )
    if wanted and smoothing > 0:
        share = smoothing * rate / items
        d_w -= share * (scale[:, None] * h).sum(0)
        d_b -= share * scale.sum()
    return losses, d_h, d_w, d_b
