"""What the compiled sampled losses share: gradients taken with the loss, item gradients summed by id.

A backend brings loss kernels over rows; this module puts them between autograd's two passes, in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.kernels.embedding import rows_of
from recsys.kernels.embedding.gather import gather
from recsys.kernels.sampled_loss.form import Arguments, Form

__all__ = ["Backend", "LossGradients", "LossInputs", "over_shared_negatives", "sampled_loss"]


class LossInputs(NamedTuple):
    """What a loss kernel needs beside hidden states and table."""

    targets: Tensor
    """(N,) item ids."""

    negatives: Tensor
    """(N, K) or (K,) item ids."""

    target_rows: Tensor
    """Rows of the table for the targets: (N,), or (N, R) hashed."""

    negative_rows: Tensor
    """Likewise, for the negatives."""

    log_q: Tensor | None
    """(N, K) or (K,) float32."""

    target_log_q: Tensor | None
    """(N,) float32."""

    form: Form
    rate: float
    """1 / temperature."""

    sparse: bool
    """Whether the table's gradient is sparse."""


class LossGradients(NamedTuple):
    """Losses of rows and, if asked for, gradients of their sum; the table's before it is summed by id."""

    losses: Tensor
    """(N,)."""

    d_hidden: Tensor
    """(N, d)."""

    rows: Tensor
    """int64 rows of the table, in any shape: each is one event."""

    events: Tensor
    """(E, d): `per_row` consecutive events share one."""

    per_row: int

    coefficients: Tensor | None
    """What events are multiplied by, each shared by the rows of one item; None for ones."""


LossKernel = Callable[[Tensor, Tensor, Tensor, LossInputs, bool], LossGradients]
"""(hidden, table, row weights, inputs, whether gradients are needed) to `LossGradients`."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The loss kernels of a device."""

    own_negatives: LossKernel
    """Negatives (N, K), each row's own."""

    shared_negatives: LossKernel
    """Negatives (K,) of all rows."""

    table_gradient: Callable[..., Tensor]
    """The embedding's `table_gradient`."""


def sampled_loss(backend: Backend, arguments: Arguments, form: Form) -> Tensor:
    """Compute the loss; the public functions have checked the arguments."""
    hidden, weight, reduction = arguments.hidden, arguments.weight, arguments.reduction
    log_q, target_log_q = arguments.log_q, arguments.target_log_q
    table, target_rows = rows_of(arguments.items, arguments.targets)
    _, negative_rows = rows_of(arguments.items, arguments.negatives)
    inputs = LossInputs(
        targets=arguments.targets.contiguous(),
        negatives=arguments.negatives.contiguous(),
        target_rows=target_rows,
        negative_rows=negative_rows,
        log_q=None if log_q is None else log_q.float().contiguous(),
        target_log_q=None if target_log_q is None else target_log_q.float().contiguous(),
        form=form,
        rate=1 / arguments.temperature,
        sparse=arguments.sparse,
    )
    h = hidden.float()
    scale = torch.ones(len(h), device=h.device) if weight is None else weight.float()
    if reduction == "none":
        losses: Tensor = _RowLosses.apply(h, table, scale, inputs, backend)  # type: ignore[no-untyped-call]
        return losses.to(hidden.dtype)
    if reduction == "mean":
        mass = scale.sum(dtype=torch.float64)
        scale = (scale / torch.where(mass == 0.0, 1.0, mass)).float()
    loss: Tensor = _SummedLoss.apply(h, table, scale, inputs, backend)  # type: ignore[no-untyped-call]
    return loss.to(hidden.dtype)


class _SummedLoss(torch.autograd.Function):
    """The sum of scale * loss over rows; score gradients are ready when it is, those of the table later."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w: Tensor, scale: Tensor, inputs: LossInputs, backend: Backend
    ) -> Tensor:
        need_gradients = any(ctx.needs_input_grad[:2])
        result = _loss_gradients(h, w, scale, inputs, backend, need_gradients)
        if need_gradients:
            ctx.save_for_backward(w, *(x for x in result if isinstance(x, Tensor)))
            ctx.per_row, ctx.weighted = result.per_row, result.coefficients is not None
            ctx.sparse, ctx.backend = inputs.sparse, backend
        return (result.losses * scale).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        w, losses, d_hidden, rows, events, *coefficients = ctx.saved_tensors
        result = LossGradients(
            losses, d_hidden, rows, events * upstream, ctx.per_row, coefficients[0] if ctx.weighted else None
        )
        d_table = _table_gradient(w, result, ctx.sparse, ctx.backend) if ctx.needs_input_grad[1] else None
        return d_hidden * upstream, d_table, None, None, None


class _RowLosses(torch.autograd.Function):
    """scale * loss of each row; rows' upstream gradients enter before rows are summed, by a second pass."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w: Tensor, scale: Tensor, inputs: LossInputs, backend: Backend
    ) -> Tensor:
        ctx.save_for_backward(h, w, scale)
        ctx.inputs, ctx.backend = inputs, backend
        return _loss_gradients(h, w, scale, inputs, backend, False).losses * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        h, w, scale = ctx.saved_tensors
        result = _loss_gradients(h, w, scale * upstream, ctx.inputs, ctx.backend, True)
        d_table = _table_gradient(w, result, ctx.inputs.sparse, ctx.backend)
        return result.d_hidden, d_table, None, None, None


def _loss_gradients(
    h: Tensor, w: Tensor, scale: Tensor, inputs: LossInputs, backend: Backend, need_gradients: bool
) -> LossGradients:
    kernel = backend.shared_negatives if inputs.negatives.dim() == 1 else backend.own_negatives
    return kernel(
        h.detach().contiguous(), w.detach().float().contiguous(), scale.detach(), inputs, need_gradients
    )


def _table_gradient(w: Tensor, result: LossGradients, sparse: bool, backend: Backend) -> Tensor:
    coefficients = result.coefficients
    each = 1 if coefficients is None else result.rows.numel() // max(1, coefficients.numel())
    return backend.table_gradient(
        w,
        result.rows,
        result.events,
        sparse,
        per_row=result.per_row,
        coefficients=coefficients,
        per_coefficient=max(1, each),
    )


def over_shared_negatives(
    h: Tensor,
    w: Tensor,
    inputs: LossInputs,
    need_gradients: bool,
    *,
    block_score_gradients: Callable[[int, Tensor, Tensor, Tensor, Tensor], None],
    block_scores: int,
    multiple: int,
) -> LossGradients:
    """Compute losses against shared negatives: blocks of rows times the negatives' gathered vectors.

    Args:
        h: (N, d) float32.
        w: (R, d) float32.
        inputs: with negatives (K,).
        need_gradients: whether to compute them.
        block_score_gradients: (first row, its block's target scores, its scores, losses (N,), target scores'
            gradients) writes the last two and turns the scores into their gradients, in place.
        block_scores: scores that a block has at most (64 rows are always taken).
        multiple: of columns that a row of scores is padded to; those behind K are scratch.
    """
    (n, width), count = h.shape, len(inputs.negatives)
    padded = count + -count % multiple
    others, own = gather(w, inputs.negative_rows), gather(w, inputs.target_rows)
    losses = h.new_empty(n)
    d_hidden = h.new_empty(h.shape if need_gradients else 0)
    d_vectors = h.new_empty(n + count, width) if need_gradients else h.new_empty(0, width)
    d_vectors[n:] = 0
    block = max(64, block_scores // padded)
    scores = h.new_empty(min(block, n), padded)
    for first in range(0, n, block):
        last = min(first + block, n)
        here, mine = h[first:last], scores[: last - first]
        real = mine[:, :count]
        torch.mm(here, others.T, out=real).mul_(inputs.rate)
        positives = (here * own[first:last]).sum(1).mul_(inputs.rate)
        d_positives = h.new_empty(last - first)
        block_score_gradients(first, positives, mine, losses, d_positives)
        if need_gradients:
            torch.addmm(own[first:last] * d_positives[:, None], real, others, out=d_hidden[first:last])
            torch.mul(here, d_positives[:, None], out=d_vectors[first:last])
            d_vectors[n:].addmm_(real.T, here)
    rows = torch.cat((inputs.target_rows, inputs.negative_rows))
    return LossGradients(losses, d_hidden, rows, d_vectors, rows.shape[1] if rows.dim() == 2 else 1, None)
