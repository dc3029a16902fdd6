"""Linear cross-entropy on the CPU: rows in chunks that stay in cache, gradients taken on the way.

A chunk's logits are made, turned into softmax minus target in place, multiplied into both gradients while
they are still in cache, and overwritten by the next chunk. The backward pass only scales, unless losses
are wanted row by row: then the rows' upstream gradients must enter before rows are summed, and the chunks
are gone through again.
"""

from typing import Any

import torch
from torch import Tensor

# Rows per chunk. 128 to 512 are level on a machine with 1 MiB of L2 per core; few rows starve the product.
CHUNK_ROWS = 256


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
    narrow = hidden.dtype in (torch.bfloat16, torch.float16)
    h, w, b = (x if x is None or not narrow else x.float() for x in (hidden, item_weight, bias))
    assert h is not None
    rows = torch.ones(len(h), dtype=h.dtype) if weight is None else weight.to(h.dtype)
    options = (label_smoothing, temperature)
    if reduction == "none":
        losses: Tensor = _RowLosses.apply(h, w, b, targets, rows, options)
        return losses.to(hidden.dtype)
    total = rows.sum()
    if reduction == "mean" and float(total) > 0:
        rows = rows / total
    loss: Tensor = _SummedLoss.apply(h, w, b, targets, rows, options)
    return loss.to(hidden.dtype)


class _SummedLoss(torch.autograd.Function):
    """Sum of scale * loss over rows; gradients are ready when the loss is."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w: Tensor, b: Tensor | None, targets: Tensor, scale: Tensor, options: Any
    ) -> Tensor:
        """Go through the chunks once."""
        wanted = any(ctx.needs_input_grad[:3])
        losses, gradients = _chunks(h, w, b, targets, scale if wanted else None, options)
        ctx.gradients = gradients
        return (losses * scale).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        """Scale what forward has found."""
        dh, dw, db = (None if g is None else g * upstream for g in ctx.gradients)
        return dh, dw, db, None, None, None


class _RowLosses(torch.autograd.Function):
    """scale * loss of each row."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w: Tensor, b: Tensor | None, targets: Tensor, scale: Tensor, options: Any
    ) -> Tensor:
        """Go through the chunks without gradients."""
        ctx.save_for_backward(h, w, b, targets, scale)
        ctx.options = options
        return _chunks(h, w, b, targets, None, options)[0] * scale

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        """Go through them again, now that the rows' weights are known."""
        h, w, b, targets, scale = ctx.saved_tensors
        _, gradients = _chunks(h, w, b, targets, scale * upstream, ctx.options)
        return *gradients, None, None, None


def _chunks(
    h: Tensor,
    w: Tensor,
    b: Tensor | None,
    targets: Tensor,
    scale: Tensor | None,
    options: tuple[float, float],
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """Losses (N,) and, where ``scale`` (N,) is given, gradients of the sum of scale * loss."""
    smoothing, temperature = options
    n, items = len(h), len(w)
    losses = torch.empty(n, dtype=h.dtype)
    dh = dw = db = None
    if scale is not None:
        dh, dw = torch.empty_like(h, memory_format=torch.contiguous_format), torch.zeros_like(w)
        db = None if b is None else torch.zeros_like(b)
    buffer = torch.empty(min(n, CHUNK_ROWS), items, dtype=h.dtype)
    for start in range(0, n, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, n)
        z = buffer[: stop - start]
        torch.mm(h[start:stop], w.T, out=z)
        if b is not None:
            z += b
        if temperature != 1.0:
            z /= temperature
        target = targets[start:stop, None]
        at_target = z.gather(1, target)[:, 0]
        mean = z.mean(1) if smoothing else None
        highest = z.amax(1)
        # z becomes exp(z - highest); its row sum is the softmax's denominator.
        total = z.sub_(highest[:, None]).exp_().sum(1)
        lse = highest + total.log()
        losses[start:stop] = lse - (1 - smoothing) * at_target
        if mean is not None:
            losses[start:stop] -= smoothing * mean
        if scale is None or dh is None or dw is None:
            continue
        row_scale = scale[start:stop] / temperature
        z *= (row_scale / total)[:, None]
        if smoothing:
            z -= (row_scale * (smoothing / items))[:, None]
        z.scatter_add_(1, target, ((smoothing - 1) * row_scale)[:, None])
        torch.mm(z, w, out=dh[start:stop])
        dw.addmm_(z.T, h[start:stop])
        if db is not None:
            db += z.sum(0)
    return losses, (dh, dw, db)
