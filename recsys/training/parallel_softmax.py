"""The full softmax over a catalog whose rows lie on several processes, from the fused loss of each.

Every process is sent the hidden states of all, and has with its own items, by `linear_cross_entropy`,

    lse_i = logsumexp over its items of z_i = its loss at an item of its own + that item's score.

The logsumexp of these over the processes is that of the catalog. What each state's gradient gets from the
items of a process goes back to whose state it is. Sums are those of one process to rounding, and on the same
number of processes the same bits in every run.

Legend: N rows of all processes, n own ones, W processes, V items, d width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.encoders.items import ShardedItemEmbedding
from recsys.kernels.cross_entropy import linear_cross_entropy
from recsys.kernels.embedding import item_vectors
from recsys.training.precision import as_multiplied
from recsys.training.processes import Processes

__all__ = ["ParallelSoftmax"]


class ParallelSoftmax:
    """The softmax of a training; all processes call the same methods together.

    Args:
        table: with the rows of this process.
        n_items: V.
        processes: that have the rows.
        label_smoothing: share of the target that is spread over the catalog.
        temperature: divides the scores.
    """

    def __init__(
        self,
        table: ShardedItemEmbedding,
        n_items: int,
        processes: Processes,
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        self._table = table
        self._n_items = n_items
        self._processes = processes
        self._smoothing = label_smoothing
        self._temperature = temperature

    def __call__(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of the rows of this process.

        The gradient of the table is that of all processes' rows. It is scaled by what comes from upstream
        over n, which has to be the same in all processes.

        Args:
            hidden: (n, d).
            targets: (n,) int64.
        """
        loss: Tensor = _Mean.apply(hidden, self._table.weight, targets, self)  # type: ignore[no-untyped-call]
        return loss

    def idle(self, row_weight: float) -> None:
        """Take part without rows, and add the table's gradient.

        Args:
            row_weight: what a row of the others counts in their loss.
        """
        weight = self._table.weight
        hidden = weight.detach().new_empty(0, weight.shape[1])
        targets = torch.empty(0, dtype=torch.int64, device=weight.device)
        _, _, gradient = self.together(hidden, targets)
        gradient = gradient * row_weight
        weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """(n,) float64 losses of the rows of this process, without gradients."""
        with torch.no_grad():
            lengths, states, wanted = self._gathered(hidden.detach(), targets)
            scores = self._scores(states, self._table.weight.detach(), wanted)
            _, losses = self._totals(scores, wanted)
        mine: Tensor = losses.split(lengths)[self._processes.rank]
        return mine

    def together(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of the rows of this process, and gradients of the sum of the losses of all rows.

        Args:
            hidden: (n, d) without gradient.
            targets: (n,) int64.

        Returns:
            (n,) float64 losses; (n, d) gradient of the rows of this process; that of its part of the table.
        """
        lengths, states, wanted = self._gathered(hidden, targets)
        weight = self._table.weight.detach().requires_grad_()
        states.requires_grad_()
        with torch.enable_grad():
            scores = self._scores(states, weight, wanted)
        total, losses = self._totals([score.detach() for score in scores], wanted)
        upstream = [(scores[0].detach().double() - total).exp(), -(1 - self._smoothing) * self._mine(wanted)]
        if self._smoothing:
            upstream.append(torch.full_like(total, -self._smoothing / self._n_items))
        of_states, of_weight = torch.autograd.grad(
            scores, (states, weight), [u.to(s.dtype) for u, s in zip(upstream, scores, strict=True)]
        )
        parts = self._processes.exchange(of_states.split(lengths), [len(hidden)] * self._processes.size)
        own = parts[0].clone()
        for part in parts[1:]:
            own += part
        return losses.split(lengths)[self._processes.rank], own, of_weight

    def _gathered(self, hidden: Tensor, targets: Tensor) -> tuple[list[int], Tensor, Tensor]:
        """How many rows each process has, their states and their targets."""
        weight = self._table.weight
        states = self._processes.gather(hidden.to(weight.dtype))
        lengths = [len(part) for part in states]
        return lengths, torch.cat(states), torch.cat(self._processes.gather(targets, lengths))

    def _mine(self, targets: Tensor) -> Tensor:
        """(N,) float64: 1 where the target is an item of this process, else 0."""
        return (targets % self._processes.size == self._processes.rank).double()

    def _scores(self, states: Tensor, weight: Tensor, targets: Tensor) -> list[Tensor]:
        """Of every row with the items of this process: logsumexp, score of the target, sum of all scores.

        The score is that of another item where the target is not one of these; the sum is left out without
        label smoothing.
        """
        catalog = weight[: self._table.n_own(self._n_items)]
        own = torch.where(self._mine(targets) > 0, targets // self._processes.size, 0)
        losses = linear_cross_entropy(states, catalog, own, temperature=self._temperature, reduction="none")
        multiplied = as_multiplied(states)
        with torch.autocast(states.device.type, enabled=False):
            score = (multiplied * as_multiplied(item_vectors(weight, own))).sum(-1) / self._temperature
            found = [losses.to(score.dtype) + score, score]
            if self._smoothing:
                found.append(multiplied @ as_multiplied(catalog).sum(0) / self._temperature)
        return found

    def _totals(self, scores: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) float64 logsumexp over the catalog, and the losses."""
        told = torch.stack(scores, 1).double()
        told[:, 1] *= self._mine(targets)
        every = torch.stack(self._processes.gather(told, [len(told)] * self._processes.size))
        total = every[:, :, 0].logsumexp(0)
        losses = total - (1 - self._smoothing) * every[:, :, 1].sum(0)
        if self._smoothing:
            losses = losses - self._smoothing / self._n_items * every[:, :, 2].sum(0)
        return total, losses


class _Mean(torch.autograd.Function):
    """Gradients are taken in the forward pass, so that a backward pass waits for no other process."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softmax: ParallelSoftmax
    ) -> Tensor:
        losses, of_hidden, of_weight = softmax.together(hidden.detach(), targets)
        ctx.save_for_backward(of_hidden.to(hidden.dtype), of_weight)
        return (losses.sum() / max(len(losses), 1)).to(of_weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_weight = ctx.saved_tensors
        factor = upstream / max(len(of_hidden), 1)
        return of_hidden * factor.to(of_hidden.dtype), of_weight * factor, None, None
