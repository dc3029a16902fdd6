"""Sampled losses on the GPU: the sweeps of `cpu` as Triton kernels, products with shared negatives by cuBLAS.

A row has its own program, so its loss and slopes have the same bits whatever it is batched with where its
negatives are its own.
"""

import torch
from torch import Tensor

from recsys.kernels.embedding.triton import table_gradient
from recsys.kernels.sampled_loss.assembly import Backend, Call, Swept, sweep_shared
from recsys.kernels.sampled_loss.triton_slopes import block_kernel, rows_kernel
from recsys.kernels.shared.launching import architecture, choose_config, launch

__all__ = ["BACKEND"]

BLOCK_SCORES = 1 << 24
"""Scores of a block of rows against shared negatives: 64 MiB, enough to fill the chip."""


def _sweep_rows(h: Tensor, w: Tensor, scale: Tensor, call: Call, wanted: bool) -> Swept:
    (n, width), count = h.shape, call.negatives.shape[1]
    rows = torch.cat((call.target_rows[:, None], call.negative_rows), 1)
    per_item = rows.shape[2] if rows.dim() == 3 else 1
    losses, coefficients = h.new_empty(n), h.new_empty(n, count + 1)
    d_hidden = h.new_empty(h.shape if wanted else 0)
    log_q = call.log_q
    launch(
        rows_kernel,
        n,
        choose_config("sampled_loss", "rows", architecture(h), width=width, per_item=per_item),
        h,
        w,
        rows,
        call.targets,
        call.negatives,
        log_q,
        call.target_log_q,
        scale.contiguous(),
        losses,
        coefficients,
        d_hidden,
        count,
        0 if log_q is None or log_q.dim() == 1 else count,
        width,
        call.rate,
        call.form.smoothing,
        call.form.beta,
        PER_ITEM=per_item,
        KIND=call.form.kind,
        WANTED=wanted,
    )
    return Swept(losses, d_hidden, rows, h, (count + 1) * per_item, coefficients)


def _sweep_shared(h: Tensor, w: Tensor, scale: Tensor, call: Call, wanted: bool) -> Swept:
    count, scale = len(call.negatives), scale.contiguous()
    config = choose_config("sampled_loss", "block", architecture(h), count=count)

    def block_slopes(first: int, positives: Tensor, scores: Tensor, losses: Tensor, slopes: Tensor) -> None:
        launch(
            block_kernel,
            len(positives),
            config,
            positives,
            scores,
            call.targets,
            call.negatives,
            call.log_q,
            call.target_log_q,
            scale,
            losses,
            slopes,
            first,
            count,
            call.rate,
            call.form.smoothing,
            call.form.beta,
            KIND=call.form.kind,
            WANTED=wanted,
        )

    return sweep_shared(
        h,
        w,
        call,
        wanted,
        block_slopes=block_slopes,
        block_scores=BLOCK_SCORES,
        multiple=1,
    )


BACKEND = Backend(_sweep_rows, _sweep_shared, table_gradient)
"""The sweeps of this device."""
