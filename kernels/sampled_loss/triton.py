"""Sampled losses on the GPU: Triton kernels, and cuBLAS for products with shared negatives.

A row has its own program, so its loss and score gradients have the same bits whatever it is batched with
where its negatives are its own.
"""

import torch
from torch import Tensor

from recsys.kernels.embedding.triton import table_gradient
from recsys.kernels.sampled_loss.autograd import Backend, LossGradients, LossInputs, over_shared_negatives
from recsys.kernels.sampled_loss.triton_forward import block_kernel, rows_kernel
from recsys.kernels.shared.launching import architecture, choose_config, launch

__all__ = ["BACKEND"]

BLOCK_SCORES = 1 << 24
"""Scores of a block of rows against shared negatives: 64 MiB, enough to fill the chip."""


def _own_negatives(
    h: Tensor, w: Tensor, scale: Tensor, inputs: LossInputs, need_gradients: bool
) -> LossGradients:
    (n, width), count = h.shape, inputs.negatives.shape[1]
    rows = torch.cat((inputs.target_rows[:, None], inputs.negative_rows), 1)
    per_item = rows.shape[2] if rows.dim() == 3 else 1
    losses, coefficients = h.new_empty(n), h.new_empty(n, count + 1)
    d_hidden = h.new_empty(h.shape if need_gradients else 0)
    log_q = inputs.log_q
    launch(
        rows_kernel,
        n,
        choose_config("sampled_loss", "rows", architecture(h), width=width, per_item=per_item),
        h,
        w,
        rows,
        inputs.targets,
        inputs.negatives,
        log_q,
        inputs.target_log_q,
        scale.contiguous(),
        losses,
        coefficients,
        d_hidden,
        count,
        0 if log_q is None or log_q.dim() == 1 else count,
        width,
        inputs.rate,
        inputs.form.smoothing,
        inputs.form.beta,
        R=per_item,
        KIND=inputs.form.kind,
        NEED_GRADIENTS=need_gradients,
    )
    return LossGradients(losses, d_hidden, rows, h, (count + 1) * per_item, coefficients)


def _shared_negatives(
    h: Tensor, w: Tensor, scale: Tensor, inputs: LossInputs, need_gradients: bool
) -> LossGradients:
    count, scale = len(inputs.negatives), scale.contiguous()
    config = choose_config("sampled_loss", "block", architecture(h), count=count)

    def block_score_gradients(
        first: int, positives: Tensor, scores: Tensor, losses: Tensor, d_positives: Tensor
    ) -> None:
        launch(
            block_kernel,
            len(positives),
            config,
            positives,
            scores,
            inputs.targets,
            inputs.negatives,
            inputs.log_q,
            inputs.target_log_q,
            scale,
            losses,
            d_positives,
            first,
            count,
            inputs.rate,
            inputs.form.smoothing,
            inputs.form.beta,
            KIND=inputs.form.kind,
            NEED_GRADIENTS=need_gradients,
        )

    return over_shared_negatives(
        h,
        w,
        inputs,
        need_gradients,
        block_score_gradients=block_score_gradients,
        block_scores=BLOCK_SCORES,
        multiple=1,
    )


BACKEND = Backend(_own_negatives, _shared_negatives, table_gradient)
"""The loss kernels of this device."""
