"""Linear cross-entropy of bfloat16 on a CPU with matrix tiles; its host side.

Legend: N rows, V items, d width.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.kernels.cross_entropy.cpu_tiles_backward import items_worker
from recsys.kernels.cross_entropy.cpu_tiles_forward import rows_worker
from recsys.kernels.shared.arrays import bits, flat
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector.tile_blocks import blocks, transposed_blocks
from recsys.kernels.shared.vector.tiles import BLOCK

_VANISHING = 1e30
"""Normalizer of rows that only fill up a block: their shares are 0."""

_STEPS_PER_PRODUCT = 60
"""Multiply-adds of the matrix tiles in the time of one elementary step of `threads_for`."""


def losses_and_gradients(
    h: Tensor,
    w: Tensor,
    b: Tensor | None,
    targets: Tensor,
    scale: Tensor,
    smoothing: float,
    rate: float,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute losses (N,) and, where wanted, the gradients of the sum of scale * loss, all float32.

    Args:
        h: (N, d) bfloat16; N >= 1, d a multiple of 32.
        w: (V, d) bfloat16.
        b: (V,) float32 or None.
        targets: (N,) int64, checked.
        scale: (N,) float32.
        smoothing: label smoothing.
        rate: 1 / temperature.
        wanted: whether gradients are; else they are empty.
    """
    n, width = h.shape
    items = w.shape[0]
    hidden, vectors = _padded(h), _padded(w)
    rows, spans = -(-n // BLOCK), -(-items // BLOCK)
    losses, normalizers = torch.empty(n), torch.full((rows * BLOCK,), _VANISHING)
    gradient_rows = rows * BLOCK if wanted else 0
    d_h = torch.empty(gradient_rows, width)
    bias = torch.empty(0) if b is None else b
    whole = torch.empty(0)
    if smoothing > 0:
        # Not a matrix product, which autocast would round.
        whole = (h.float() * w.float().sum(0)).sum(1)
        whole = whole if b is None else whole + b.sum()
    steps = 2 * n * items * width // _STEPS_PER_PRODUCT
    launch(
        rows_worker,
        threads_for(rows, steps),
        n,
        items,
        bits(hidden),
        bits(transposed_blocks(vectors)),
        bits(blocks(vectors)),
        flat(bias),
        targets.contiguous().numpy(),
        flat(scale),
        flat(whole),
        width,
        np.float32(rate),
        np.float32(smoothing),
        losses.numpy(),
        normalizers.numpy(),
        flat(d_h),
    )
    if not wanted:
        return losses, torch.empty(0), torch.empty(0), torch.empty(0)
    d_w = torch.empty(spans * BLOCK, width)
    d_b = torch.zeros(0 if b is None else items)
    factors = F.pad(scale * rate, (0, rows * BLOCK - n))
    launch(
        items_worker,
        threads_for(spans, steps),
        n,
        items,
        bits(vectors),
        bits(transposed_blocks(hidden)),
        bits(blocks(hidden)),
        flat(bias),
        normalizers.numpy(),
        flat(factors),
        width,
        np.float32(rate),
        flat(d_w),
        flat(d_b),
    )
    d_h, d_w = d_h[:n], d_w[:items]
    hits = (scale * (rate * (smoothing - 1.0)))[:, None]
    d_h.addcmul_(hits, w[targets].float())
    d_w.index_add_(0, targets, hits * h.float())
    if b is not None:
        d_b.index_add_(0, targets, hits[:, 0])
    if smoothing > 0:
        share = smoothing * rate / items
        d_h -= (share * scale)[:, None] * w.float().sum(0)
        d_w -= share * (scale[:, None] * h.float()).sum(0)
        d_b -= share * scale.sum()
    return losses, d_h, d_w, d_b


def _padded(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, -x.shape[0] % BLOCK)).contiguous()
