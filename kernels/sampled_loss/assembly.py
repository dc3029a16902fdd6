"""What the compiled sampled losses share: gradients taken with the loss, item gradients summed by id.

A backend brings sweeps over rows; this module puts them between autograd's two passes, in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.kernels.embedding import Items, rows_of
from recsys.kernels.embedding.looking_up import gather
from recsys.kernels.sampled_loss.form import Form

__all__ = ["Backend", "Call", "Swept", "sampled_loss", "sweep_shared"]


class Call(NamedTuple):
    """What a sweep needs beside hidden states and table."""

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


class Swept(NamedTuple):
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


Sweep = Callable[[Tensor, Tensor, Tensor, Call, bool], Swept]
"""(hidden, table, row weights, call, whether gradients are wanted) to `Swept`."""


@dataclass(frozen=True, slots=True)
class Backend:
    """How a device sweeps."""

    sweep_rows: Sweep
    """Negatives (N, K), each row's own."""

    sweep_shared: Sweep
    """Negatives (K,) of all rows."""

    table_gradient: Callable[..., Tensor]
    """The embedding's `table_gradient`."""


def sampled_loss(
    backend: Backend,
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
    call = Call(
        targets.contiguous(),
        negatives.contiguous(),
        target_rows,
        negative_rows,
        None if log_q is None else log_q.float().contiguous(),
        None if target_log_q is None else target_log_q.float().contiguous(),
        form,
        1 / temperature,
        sparse,
    )
    h = hidden.float()
    scale = torch.ones(len(h), device=h.device) if weight is None else weight.float()
    if reduction == "none":
        losses: Tensor = _RowLosses.apply(h, table, scale, call, backend)  # type: ignore[no-untyped-call]
        return losses.to(hidden.dtype)
    if reduction == "mean":
        mass = scale.sum(dtype=torch.float64)
        scale = (scale / torch.where(mass == 0.0, 1.0, mass)).float()
    loss: Tensor = _SummedLoss.apply(h, table, scale, call, backend)  # type: ignore[no-untyped-call]
    return loss.to(hidden.dtype)


class _SummedLoss(torch.autograd.Function):
    """The sum of scale * loss over rows; slopes are ready when it is, gradient rows are summed later."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, scale: Tensor, call: Call, backend: Backend) -> Tensor:
        wanted = any(ctx.needs_input_grad[:2])
        swept = _sweep(h, w, scale, call, backend, wanted)
        if wanted:
            ctx.save_for_backward(w, *(x for x in swept if isinstance(x, Tensor)))
            ctx.per_row, ctx.weighted = swept.per_row, swept.coefficients is not None
            ctx.sparse, ctx.backend = call.sparse, backend
        return (swept.losses * scale).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        w, losses, d_hidden, rows, events, *coefficients = ctx.saved_tensors
        swept = Swept(
            losses, d_hidden, rows, events * upstream, ctx.per_row, coefficients[0] if ctx.weighted else None
        )
        d_table = _table_gradient(w, swept, ctx.sparse, ctx.backend) if ctx.needs_input_grad[1] else None
        return d_hidden * upstream, d_table, None, None, None


class _RowLosses(torch.autograd.Function):
    """scale * loss of each row; rows' upstream gradients enter before rows are summed, by a second sweep."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, scale: Tensor, call: Call, backend: Backend) -> Tensor:
        ctx.save_for_backward(h, w, scale)
        ctx.call, ctx.backend = call, backend
        return _sweep(h, w, scale, call, backend, False).losses * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        h, w, scale = ctx.saved_tensors
        swept = _sweep(h, w, scale * upstream, ctx.call, ctx.backend, True)
        d_table = _table_gradient(w, swept, ctx.call.sparse, ctx.backend)
        return swept.d_hidden, d_table, None, None, None


def _sweep(h: Tensor, w: Tensor, scale: Tensor, call: Call, backend: Backend, wanted: bool) -> Swept:
    sweep = backend.sweep_shared if call.negatives.dim() == 1 else backend.sweep_rows
    return sweep(h.detach().contiguous(), w.detach().float().contiguous(), scale.detach(), call, wanted)


def _table_gradient(w: Tensor, swept: Swept, sparse: bool, backend: Backend) -> Tensor:
    coefficients = swept.coefficients
    each = 1 if coefficients is None else swept.rows.numel() // max(1, coefficients.numel())
    return backend.table_gradient(
        w,
        swept.rows,
        swept.events,
        sparse,
        per_row=swept.per_row,
        coefficients=coefficients,
        per_coefficient=max(1, each),
    )


def sweep_shared(
    h: Tensor,
    w: Tensor,
    call: Call,
    wanted: bool,
    *,
    block_slopes: Callable[[int, Tensor, Tensor, Tensor, Tensor], None],
    block_scores: int,
    multiple: int,
) -> Swept:
    """Sweep rows against shared negatives: products of blocks of rows with the negatives' gathered table.

    Args:
        h: (N, d) float32.
        w: (R, d) float32.
        call: with negatives (K,).
        wanted: whether gradients are.
        block_slopes: (first row, its block's target scores, its scores, losses (N,), slopes of the targets)
            writes losses and slopes, and turns scores into slopes in place.
        block_scores: scores that a block has at most (64 rows are always taken).
        multiple: of columns that a row of scores is padded to; those behind K are scratch.
    """
    (n, width), count = h.shape, len(call.negatives)
    padded = count + -count % multiple
    others, own = gather(w, call.negative_rows), gather(w, call.target_rows)
    losses = h.new_empty(n)
    d_hidden = h.new_empty(h.shape if wanted else 0)
    d_vectors = h.new_empty(n + count, width) if wanted else h.new_empty(0, width)
    d_vectors[n:] = 0
    block = max(64, block_scores // padded)
    scores = h.new_empty(min(block, n), padded)
    for first in range(0, n, block):
        last = min(first + block, n)
        here, mine = h[first:last], scores[: last - first]
        real = mine[:, :count]
        torch.mm(here, others.T, out=real).mul_(call.rate)
        positives = (here * own[first:last]).sum(1).mul_(call.rate)
        slopes = h.new_empty(last - first)
        block_slopes(first, positives, mine, losses, slopes)
        if wanted:
            torch.addmm(own[first:last] * slopes[:, None], real, others, out=d_hidden[first:last])
            torch.mul(here, slopes[:, None], out=d_vectors[first:last])
            d_vectors[n:].addmm_(real.T, here)
    rows = torch.cat((call.target_rows, call.negative_rows))
    return Swept(losses, d_hidden, rows, d_vectors, rows.shape[1] if rows.dim() == 2 else 1, None)
