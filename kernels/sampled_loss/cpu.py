"""Sampled losses on the CPU: float32, gradients taken with the loss, item gradients by sorted ids.

Negatives of a row's own: one sweep gathers a row's item vectors, and again for its gradient while they are in
cache. Negatives shared by all rows: products of blocks of rows with their gathered table.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recsys.kernels.arrays import flat
from recsys.kernels.embedding import Items, rows_of
from recsys.kernels.embedding.cpu import lookup, table_gradient
from recsys.kernels.sampled_loss import sweeps
from recsys.kernels.sampled_loss.form import Form
from recsys.kernels.threads import launch, threads_for
from recsys.kernels.vector import LANES

__all__ = ["sampled_loss"]

BLOCK_SCORES = 1 << 20
"""Scores of a block of rows against shared negatives: 4 MiB, which stay in the last-level cache."""


class _Call(NamedTuple):
    """What a sweep needs beside hidden states and table."""

    targets: Tensor
    negatives: Tensor
    target_rows: Tensor
    negative_rows: Tensor
    log_q: Tensor | None
    target_log_q: Tensor | None
    form: Form
    rate: float
    sparse: bool


class _Swept(NamedTuple):
    """Losses of rows and, where wanted, the gradients of the summed loss; the table's before it is summed."""

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


def sampled_loss(
    hidden: Tensor,
    items: Items,
    targets: Tensor,
    negatives: Tensor,
    *,
    form: Form,
    log_q: Tensor | None,
    target_log_q: Tensor | None,
    temperature: float,
    sparse: bool,
    weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """Compute the loss; arguments as in the public functions, which have checked them."""
    table, target_rows = rows_of(items, targets)
    _, negative_rows = rows_of(items, negatives)
    if log_q is not None:
        # Whole vectors of it are read.
        log_q = F.pad(log_q.float(), (0, -log_q.shape[-1] % LANES))
    call = _Call(
        targets, negatives, target_rows, negative_rows, log_q, target_log_q, form, 1 / temperature, sparse
    )
    h = hidden.float()
    scale = torch.ones(len(h)) if weight is None else weight.float()
    if reduction == "none":
        losses: Tensor = _RowLosses.apply(h, table, scale, call)  # type: ignore[no-untyped-call]
        return losses.to(hidden.dtype)
    if reduction == "mean":
        mass = scale.sum(dtype=torch.float64)
        scale = (scale / torch.where(mass == 0.0, 1.0, mass)).float()
    loss: Tensor = _SummedLoss.apply(h, table, scale, call)  # type: ignore[no-untyped-call]
    return loss.to(hidden.dtype)


class _SummedLoss(torch.autograd.Function):
    """The sum of scale * loss over rows; slopes are ready when it is, gradient rows are summed later."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, scale: Tensor, call: _Call) -> Tensor:
        wanted = any(ctx.needs_input_grad[:2])
        swept = _sweep(h, w, scale, call, wanted)
        if wanted:
            ctx.save_for_backward(w, *(x for x in swept if isinstance(x, Tensor)))
            ctx.per_row, ctx.weighted, ctx.sparse = swept.per_row, swept.coefficients is not None, call.sparse
        return (swept.losses * scale).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        w, losses, d_hidden, rows, events, *coefficients = ctx.saved_tensors
        swept = _Swept(
            losses, d_hidden, rows, events * upstream, ctx.per_row, coefficients[0] if ctx.weighted else None
        )
        d_table = _table_gradient(w, swept, ctx.sparse) if ctx.needs_input_grad[1] else None
        return d_hidden * upstream, d_table, None, None


class _RowLosses(torch.autograd.Function):
    """scale * loss of each row; rows' upstream gradients enter before rows are summed, by a second sweep."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, scale: Tensor, call: _Call) -> Tensor:
        ctx.save_for_backward(h, w, scale)
        ctx.call = call
        return _sweep(h, w, scale, call, False).losses * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        h, w, scale = ctx.saved_tensors
        swept = _sweep(h, w, scale * upstream, ctx.call, True)
        return swept.d_hidden, _table_gradient(w, swept, ctx.call.sparse), None, None


def _table_gradient(w: Tensor, swept: _Swept, sparse: bool) -> Tensor:
    coefficients = swept.coefficients
    each = 1 if coefficients is None else swept.rows.numel() // max(1, coefficients.numel())
    return table_gradient(
        w,
        swept.rows,
        swept.events,
        sparse,
        per_row=swept.per_row,
        coefficients=coefficients,
        per_coefficient=max(1, each),
    )


def _sweep(h: Tensor, w: Tensor, scale: Tensor, call: _Call, wanted: bool) -> _Swept:
    sweep = _sweep_shared if call.negatives.dim() == 1 else _sweep_rows
    return sweep(h.detach().contiguous(), w.detach().float(), scale.detach(), call, wanted)


def _numbers(form: Form) -> tuple[int, np.float32, np.float32]:
    return form.kind, np.float32(form.smoothing), np.float32(form.beta)


def _sweep_rows(h: Tensor, w: Tensor, scale: Tensor, call: _Call, wanted: bool) -> _Swept:
    (n, width), count = h.shape, call.negatives.shape[1]
    rows = torch.cat((call.target_rows[:, None], call.negative_rows), 1)
    per_item = rows.shape[2] if rows.dim() == 3 else 1
    losses = h.new_empty(n)
    d_hidden = h.new_empty(h.shape if wanted else 0)
    coefficients = h.new_empty((n, count + 1) if wanted else 0)
    log_q = call.log_q
    launch(
        sweeps.rows_worker,
        threads_for(-(-n // sweeps.ROWS), rows.numel() * width // (8 if wanted else 16)),
        *_numbers(call.form),
        flat(h),
        flat(w),
        width,
        rows.view(-1).numpy(),
        per_item,
        call.targets.contiguous().numpy(),
        call.negatives.contiguous().view(-1).numpy(),
        count,
        flat(log_q),
        0 if log_q is None or log_q.dim() == 1 else log_q.shape[1],
        flat(None if call.target_log_q is None else call.target_log_q.float()),
        flat(scale),
        np.float32(call.rate),
        flat(losses),
        flat(coefficients),
        flat(d_hidden),
    )
    return _Swept(losses, d_hidden, rows, h, (count + 1) * per_item, coefficients)


def _sweep_shared(h: Tensor, w: Tensor, scale: Tensor, call: _Call, wanted: bool) -> _Swept:
    (n, width), count = h.shape, len(call.negatives)
    padded = count + -count % LANES
    others = lookup(w, call.negative_rows, False)
    own = lookup(w, call.target_rows, False)
    losses = h.new_empty(n)
    d_hidden = h.new_empty(h.shape if wanted else 0)
    d_vectors = h.new_empty(n + count, width) if wanted else h.new_empty(0, width)
    d_vectors[n:] = 0
    ids, negatives = call.targets.contiguous().numpy(), call.negatives.contiguous().numpy()
    log_q, scales = flat(call.log_q), flat(scale)
    target_log_q = flat(None if call.target_log_q is None else call.target_log_q.float())
    block = max(64, BLOCK_SCORES // padded)
    scores = h.new_empty(min(block, n), padded)
    for first in range(0, n, block):
        last = min(first + block, n)
        here, mine = h[first:last], scores[: last - first]
        real = mine[:, :count]
        torch.mm(here, others.T, out=real).mul_(call.rate)
        positives = (here * own[first:last]).sum(1).mul_(call.rate)
        slopes = h.new_empty(last - first)
        launch(
            sweeps.block_worker,
            threads_for(-(-(last - first) // sweeps.ROWS), mine.numel() * 4),
            *_numbers(call.form),
            first,
            flat(positives),
            flat(mine),
            padded,
            ids,
            negatives,
            log_q,
            target_log_q,
            scales,
            np.float32(call.rate),
            flat(losses),
            flat(slopes),
        )
        if wanted:
            torch.addmm(own[first:last] * slopes[:, None], real, others, out=d_hidden[first:last])
            torch.mul(here, slopes[:, None], out=d_vectors[first:last])
            d_vectors[n:].addmm_(real.T, here)
    rows = torch.cat((call.target_rows, call.negative_rows))
    return _Swept(losses, d_hidden, rows, d_vectors, rows.shape[1] if rows.dim() == 2 else 1, None)
