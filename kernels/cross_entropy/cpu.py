"""Linear cross-entropy on the CPU: float32, chunks of rows whose softmax feeds both gradients while in cache.

The gradients are ready when the loss is and the backward pass only scales them, unless losses are wanted row
by row: then the rows' upstream gradients must enter before rows are summed, and the chunks are gone through
again.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.cross_entropy import sweeps
from recsys.kernels.threads import launch, threads_for
from recsys.kernels.vector import LANES

CHUNK_LOGITS = 1 << 22
"""Exponentials kept at once, 16 MiB: they are read back from the last-level cache."""

MOST_ROWS = 1024

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def linear_cross_entropy(
    hidden: Tensor,
    item_weight: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None,
    label_smoothing: float,
    temperature: float,
    bias: Tensor | None,
    reduction: str,
) -> Tensor:
    """Compute the loss; arguments as in the public function, which has checked them."""
    h, w = (x.float().contiguous() for x in (hidden, item_weight))
    b = None if bias is None else bias.float().contiguous()
    pad = -h.shape[1] % LANES
    if pad:
        h, w = (torch.nn.functional.pad(x, (0, pad)) for x in (h, w))
    rows = torch.ones(len(h)) if weight is None else weight.float()
    options = (label_smoothing, 1.0 / temperature)
    apply: Any = _RowLosses.apply if reduction == "none" else _SummedLoss.apply
    if reduction == "mean":
        mass = float(rows.sum(dtype=torch.float64))
        rows = rows / (mass or 1.0)
    loss: Tensor = apply(h, w, b, targets.contiguous(), rows, options)
    return loss.to(hidden.dtype)


class _SummedLoss(torch.autograd.Function):
    """Sum of scale * loss over rows."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w: Tensor, b: Tensor | None, targets: Tensor, scale: Tensor, options: Any
    ) -> Tensor:
        losses, gradients = _sweep(h, w, b, targets, scale, options, wanted=any(ctx.needs_input_grad[:3]))
        ctx.save_for_backward(*gradients)
        return (losses * scale).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if g is None else g * upstream for g in ctx.saved_tensors)
        return *scaled, None, None, None


class _RowLosses(torch.autograd.Function):
    """scale * loss of each row."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w: Tensor, b: Tensor | None, targets: Tensor, scale: Tensor, options: Any
    ) -> Tensor:
        ctx.save_for_backward(h, w, b, targets, scale)
        ctx.options = options
        return _sweep(h, w, b, targets, scale, options, wanted=False)[0] * scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        h, w, b, targets, scale = ctx.saved_tensors
        _, gradients = _sweep(h, w, b, targets, scale * upstream, ctx.options, wanted=True)
        return *gradients, None, None, None


def _sweep(
    h: Tensor,
    w: Tensor,
    b: Tensor | None,
    targets: Tensor,
    scale: Tensor,
    options: tuple[float, float],
    *,
    wanted: bool,
) -> tuple[Tensor, Gradients]:
    """Compute losses (N,) and, where wanted, gradients of the sum of scale * loss.

    Every sum has an order set by the shapes, so threads do not change a bit.
    """
    smoothing, rate = np.float32(options[0]), np.float32(options[1])
    n, width = h.shape
    items = len(w)
    losses = torch.empty(n)
    if n == 0:
        empty = (torch.zeros_like(h), torch.zeros_like(w), None if b is None else torch.zeros_like(b))
        return losses, empty if wanted else (None, None, None)
    chunk = min(max(CHUNK_LOGITS // items, sweeps.MOST_LANES), MOST_ROWS)
    chunk -= chunk % sweeps.MOST_LANES
    if not wanted:
        chunk = n
    lanes = sweeps.MOST_LANES
    while lanes > LANES and min(chunk, n) < 2 * lanes * torch.get_num_threads():
        lanes //= 2
    most = -(-min(chunk, n) // lanes)  # groups of a chunk
    blocks = -(-items // sweeps.BLOCK)
    none = np.empty(0, dtype=np.float32)
    flat_h, flat_w, flat_b = _flat(h), _flat(w), none if b is None else _flat(b)
    ids, scales = targets.numpy(), _flat(scale)
    mean_item = _flat(w.mean(0)) if wanted and smoothing > 0 else none
    d_h: Tensor | None = None
    d_w: Tensor | None = None
    d_b: Tensor | None = None
    tiles = references = none
    statistics = none, none
    if wanted:
        d_h, d_w = torch.empty_like(h), torch.empty_like(w)
        d_b = None if b is None else torch.zeros_like(b)
        tiles = np.empty(most * items * lanes, dtype=np.float32)
        references = np.empty(most * blocks * lanes, dtype=np.float32)
        statistics = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    for first in range(0, n, chunk):
        last = min(first + chunk, n)
        groups = -(-(last - first) // lanes)
        steps = (last - first) * items * width // 15
        launch(
            sweeps.rows_worker,
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
            rate,
            smoothing,
            tiles,
            references,
            losses.numpy(),
            *statistics,
            none if d_h is None else _flat(d_h),
        )
        if d_w is None:
            continue
        launch(
            sweeps.items_worker,
            threads_for(blocks, steps),
            lanes,
            first,
            last,
            flat_h,
            ids,
            scales,
            width,
            rate,
            smoothing,
            tiles,
            references,
            *statistics,
            _flat(d_w),
            none if d_b is None else _flat(d_b),
        )
    if d_w is not None and smoothing > 0:
        share = options[0] * options[1] / items
        d_w -= share * (scale[:, None] * h).sum(0)
        if d_b is not None:
            d_b -= share * scale.sum()
    return losses, (d_h, d_w, d_b)


def _flat(x: Tensor) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = x.detach().contiguous().view(-1).numpy()
    return flat
