"""Sampled losses on the CPU: float32, gradients taken with the loss, item gradients by sorted ids.

Negatives of a row's own: one sweep gathers a row's item vectors, and again for its gradient while they are in
cache. Negatives shared by all rows: products of blocks of rows with their gathered table.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.kernels.embedding.cpu import table_gradient
from recsys.kernels.sampled_loss import sweeps
from recsys.kernels.sampled_loss.assembly import Backend, Call, Swept, sweep_shared
from recsys.kernels.sampled_loss.form import Form
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES

__all__ = ["BACKEND"]

BLOCK_SCORES = 1 << 20
"""Scores of a block of rows against shared negatives: 4 MiB, which stay in the last-level cache."""


def _sweep_rows(h: Tensor, w: Tensor, scale: Tensor, call: Call, wanted: bool) -> Swept:
    (n, width), count = h.shape, call.negatives.shape[1]
    rows = torch.cat((call.target_rows[:, None], call.negative_rows), 1)
    per_item = rows.shape[2] if rows.dim() == 3 else 1
    losses = h.new_empty(n)
    d_hidden = h.new_empty(h.shape if wanted else 0)
    coefficients = h.new_empty((n, count + 1) if wanted else 0)
    log_q = _padded(call.log_q)
    launch(
        sweeps.rows_worker,
        threads_for(-(-n // sweeps.ROWS), rows.numel() * width // (8 if wanted else 16)),
        *_numbers(call.form),
        flat(h),
        flat(w),
        width,
        rows.view(-1).numpy(),
        per_item,
        call.targets.numpy(),
        call.negatives.view(-1).numpy(),
        count,
        flat(log_q),
        0 if log_q is None or log_q.dim() == 1 else log_q.shape[1],
        flat(call.target_log_q),
        flat(scale),
        np.float32(call.rate),
        flat(losses),
        flat(coefficients),
        flat(d_hidden),
    )
    return Swept(losses, d_hidden, rows, h, (count + 1) * per_item, coefficients)


def _sweep_shared(h: Tensor, w: Tensor, scale: Tensor, call: Call, wanted: bool) -> Swept:
    ids, negatives = call.targets.numpy(), call.negatives.numpy()
    log_q, scales, target_log_q = flat(_padded(call.log_q)), flat(scale), flat(call.target_log_q)

    def block_slopes(first: int, positives: Tensor, scores: Tensor, losses: Tensor, slopes: Tensor) -> None:
        launch(
            sweeps.block_worker,
            threads_for(-(-len(positives) // sweeps.ROWS), scores.numel() * 4),
            *_numbers(call.form),
            first,
            flat(positives),
            flat(scores),
            scores.shape[1],
            ids,
            negatives,
            log_q,
            target_log_q,
            scales,
            np.float32(call.rate),
            flat(losses),
            flat(slopes),
        )

    return sweep_shared(
        h,
        w,
        call,
        wanted,
        block_slopes=block_slopes,
        block_scores=BLOCK_SCORES,
        multiple=LANES,
    )


def _padded(log_q: Tensor | None) -> Tensor | None:
    """Whole vectors of it are read."""
    return None if log_q is None else F.pad(log_q, (0, -log_q.shape[-1] % LANES))


def _numbers(form: Form) -> tuple[int, np.float32, np.float32]:
    return form.kind, np.float32(form.smoothing), np.float32(form.beta)


BACKEND = Backend(_sweep_rows, _sweep_shared, table_gradient)
"""The sweeps of this device."""
