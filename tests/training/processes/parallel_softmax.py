"""The full softmax over processes beside one process that computes in float64."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from recsys.encoders.items import ItemEmbedding, ShardedItemEmbedding
from recsys.kernels.cross_entropy import linear_cross_entropy
from recsys.training.parallel_softmax import ParallelSoftmax
from recsys.training.processes import Processes

ITEMS, WIDTH, ROWS, TEMPERATURE = 403, 24, 37, 0.7


def _drawn(n_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n_rows)
    hidden = torch.randn(n_rows, WIDTH, generator=generator)
    table = torch.randn(ITEMS + 1, WIDTH, generator=generator) * 0.3  # one row is no item of the catalog
    return hidden, table, torch.randint(0, ITEMS, (n_rows,), generator=generator)


def _reference(hidden: Tensor, table: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, ...]:
    """Losses, and gradients of their mean, in float64."""
    states, weight = hidden.double().requires_grad_(), table.double().requires_grad_()
    options: Any = {"label_smoothing": smoothing, "temperature": TEMPERATURE, "backend": "reference"}
    losses = linear_cross_entropy(states, weight[:ITEMS], targets, reduction="none", **options)
    losses.mean().backward()
    assert states.grad is not None
    assert weight.grad is not None
    return losses.detach(), states.grad, weight.grad


def _off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def _softmax(processes: Processes, table: Tensor, smoothing: float) -> ParallelSoftmax:
    whole = ItemEmbedding(len(table), WIDTH, _weight=table.clone())
    rows = ShardedItemEmbedding.of(whole, processes.rank, processes.size)
    return ParallelSoftmax(rows, ITEMS, processes, smoothing, TEMPERATURE)


def compared(processes: Processes, smoothing: float) -> dict[str, float]:
    """How far losses and gradients are off, relative to the largest; processes have rows as they come."""
    hidden, table, targets = _drawn(ROWS * processes.size)
    losses, of_hidden, of_table = _reference(hidden, table, targets, smoothing)
    softmax = _softmax(processes, table, smoothing)
    mine = slice(processes.rank * ROWS, (processes.rank + 1) * ROWS)
    own = hidden[mine].clone().requires_grad_()
    loss = softmax(own, targets[mine])
    (loss / processes.size).backward()
    weight = softmax._table.weight
    assert own.grad is not None
    assert weight.grad is not None
    return {
        "loss": _off(loss.detach(), losses[mine].mean()),
        "losses": _off(softmax.losses(hidden[mine], targets[mine]), losses[mine]),
        "hidden": _off(own.grad, of_hidden[mine]),
        "table": _off(weight.grad, of_table[processes.rank :: processes.size]),
        "extra row": float(weight.grad.abs().sum(1)[softmax._table.n_own(ITEMS) :].sum()),
    }


def idle_compared(processes: Processes) -> dict[str, float]:
    """The same where process 0 alone has rows."""
    hidden, table, targets = _drawn(ROWS)
    losses, of_hidden, of_table = _reference(hidden, table, targets, 0.1)
    softmax = _softmax(processes, table, 0.1)
    found = SimpleNamespace(loss=0.0, hidden=0.0)
    if processes.rank:
        softmax.idle(1 / ROWS)
    else:
        own = hidden.clone().requires_grad_()
        loss = softmax(own, targets)
        loss.backward()
        assert own.grad is not None
        found = SimpleNamespace(loss=_off(loss.detach(), losses.mean()), hidden=_off(own.grad, of_hidden))
    weight = softmax._table.weight
    assert weight.grad is not None
    table_off = _off(weight.grad, of_table[processes.rank :: processes.size])
    return {"loss": found.loss, "hidden": found.hidden, "table": table_off}
