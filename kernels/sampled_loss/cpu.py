"""Sampled losses on the CPU: float32, gradients taken with the loss, item gradients by sorted ids.

Negatives of a row's own: one pass gathers a row's item vectors, and again for its gradient while they are in
cache. Negatives shared by all rows: products of blocks of rows with their gathered table.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.kernels.embedding.cpu import table_gradient
from recsys.kernels.sampled_loss import cpu_forward
from recsys.kernels.sampled_loss.autograd import Backend, LossGradients, LossInputs, over_shared_negatives
from recsys.kernels.sampled_loss.cpu_score_gradients import Loss
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES

__all__ = ["BACKEND"]

BLOCK_SCORES = 1 << 20
"""Scores of a block of rows against shared negatives: 4 MiB, which stay in the last-level cache."""


def _own_negatives(
    h: Tensor, w: Tensor, scale: Tensor, inputs: LossInputs, need_gradients: bool
) -> LossGradients:
    (n, width), count = h.shape, inputs.negatives.shape[1]
    rows = torch.cat((inputs.target_rows[:, None], inputs.negative_rows), 1)
    per_item = rows.shape[2] if rows.dim() == 3 else 1
    losses = h.new_empty(n)
    d_hidden = h.new_empty(h.shape if need_gradients else 0)
    coefficients = h.new_empty((n, count + 1) if need_gradients else 0)
    log_q = _padded(inputs.log_q)
    launch(
        cpu_forward.rows_worker,
        threads_for(-(-n // cpu_forward.BLOCK_N), rows.numel() * width // (8 if need_gradients else 16)),
        _loss(inputs, log_q, scale),
        flat(h),
        flat(w),
        width,
        rows.view(-1).numpy(),
        per_item,
        count,
        0 if log_q is None or log_q.dim() == 1 else log_q.shape[1],
        flat(losses),
        flat(coefficients),
        flat(d_hidden),
    )
    return LossGradients(losses, d_hidden, rows, h, (count + 1) * per_item, coefficients)


def _shared_negatives(
    h: Tensor, w: Tensor, scale: Tensor, inputs: LossInputs, need_gradients: bool
) -> LossGradients:
    loss_of = _loss(inputs, _padded(inputs.log_q), scale)

    def block_score_gradients(
        first: int, positives: Tensor, scores: Tensor, losses: Tensor, d_positives: Tensor
    ) -> None:
        launch(
            cpu_forward.block_worker,
            threads_for(-(-len(positives) // cpu_forward.BLOCK_N), scores.numel() * 4),
            loss_of,
            first,
            flat(positives),
            flat(scores),
            scores.shape[1],
            flat(losses),
            flat(d_positives),
        )

    return over_shared_negatives(
        h,
        w,
        inputs,
        need_gradients,
        block_score_gradients=block_score_gradients,
        block_scores=BLOCK_SCORES,
        multiple=LANES,
    )


def _padded(log_q: Tensor | None) -> Tensor | None:
    """Whole vectors of it are read."""
    return None if log_q is None else F.pad(log_q, (0, -log_q.shape[-1] % LANES))


def _loss(inputs: LossInputs, log_q: Tensor | None, scale: Tensor) -> Loss:
    """What the compiled loops read; `log_q` in whole vectors."""
    return Loss(
        kind=inputs.form.kind,
        smoothing=np.float32(inputs.form.smoothing),
        beta=np.float32(inputs.form.beta),
        targets=inputs.targets.numpy(),
        negatives=inputs.negatives.view(-1).numpy(),
        log_q=flat(log_q),
        target_log_q=flat(inputs.target_log_q),
        scale=flat(scale),
        rate=np.float32(inputs.rate),
    )


BACKEND = Backend(_own_negatives, _shared_negatives, table_gradient)
"""The loss kernels of this device."""
