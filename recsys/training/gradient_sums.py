"""Gradients of a group of batches over several processes, added as one process would have added them.

Floating-point sums depend on their order, so the order is that of the batches' places in the group, whatever
process had them: a step changes the weights by the same bits on one process and on many.
"""

import zlib
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from recsys.errors import RunError
from recsys.training.processes import Processes

__all__ = ["GradientSum", "check_same_weights"]

ABSENT, DENSE = -2, -1
"""What stands for a gradient that is None or dense; a sparse one stands as 2 n + 1 if it is coalesced, with n
its number of rows."""


class GradientSum:
    """The gradients of one group of batches.

    The place p of a group belongs to process p mod W. Dense gradients are cut into W slices: each process is
    sent one slice of all batches, adds it up in the order of places, and sends the sum to all, so that the
    bytes moved are those of a ring all-reduce where each process has one batch. Of sparse ones every process
    is sent the rows of all batches.

    Args:
        parameters: whose gradients these are.
        processes: that share the group.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], processes: Processes) -> None:
        self._parameters = list(parameters)
        self._processes = processes
        self._batches: list[list[Tensor | None]] = []

    def take(self) -> None:
        """Take the gradients of one more batch of this process out of its parameters."""
        self._batches.append([parameter.grad for parameter in self._parameters])
        for parameter in self._parameters:
            parameter.grad = None

    def give(self, size: int) -> None:
        """Put the sum over the group into the parameters of every process.

        Args:
            size: batches of the group over all processes.
        """
        mine, self._batches = self._batches, []
        codes = self._codes(mine, size)
        dense = (codes == DENSE).any(0).tolist()
        sparse = (codes >= 0).any(0).tolist()
        by_type: dict[torch.dtype, list[int]] = {}
        for i, parameter in enumerate(self._parameters):
            if dense[i]:
                by_type.setdefault(parameter.dtype, []).append(i)
            elif sparse[i]:
                parameter.grad = self._sum_of_rows(
                    parameter, [batch[i] for batch in mine], codes[:, i].tolist()
                )
        for chosen in by_type.values():
            self._add_dense(chosen, mine, size)

    def _codes(self, mine: Sequence[Sequence[Tensor | None]], size: int) -> Tensor:
        """(size, P) int64: what the gradient of each parameter in each batch is, by places."""
        own = torch.tensor([[_code(g) for g in batch] for batch in mine], dtype=torch.int64)
        owners = self._processes.owners(size)
        lengths = [owners.count(rank) for rank in range(self._processes.size)]
        found = self._processes.gather(own.view(len(mine), len(self._parameters)), lengths)
        return torch.stack([found[p % self._processes.size][p // self._processes.size] for p in range(size)])

    def _add_dense(self, chosen: Sequence[int], mine: Sequence[Sequence[Tensor | None]], size: int) -> None:
        parameters, processes = [self._parameters[i] for i in chosen], self._processes
        total = sum(p.numel() for p in parameters)
        width = -(-total // processes.size)
        # What is absent is -0.0, the number that no sum notices.
        flat = parameters[0].new_full((len(mine), processes.size * width), -0.0)
        for row, batch in zip(flat, mine, strict=True):
            first = 0
            for i, parameter in zip(chosen, parameters, strict=True):
                gradient, last = batch[i], first + parameter.numel()
                if gradient is not None:
                    whole = gradient.to_dense() if gradient.is_sparse else gradient
                    row[first:last] = whole.reshape(-1)
                first = last
        owners = self._processes.owners(size)
        lengths = [owners.count(rank) for rank in range(processes.size)]
        slices = flat.view(len(mine), processes.size, width).unbind(1)
        found = processes.exchange(slices, lengths)
        summed = found[0][0].clone()
        for place in range(1, size):
            summed += found[place % processes.size][place // processes.size]
        whole = torch.cat(processes.gather(summed, [width] * processes.size))
        first = 0
        for parameter in parameters:
            parameter.grad = whole[first : first + parameter.numel()].view_as(parameter)
            first += parameter.numel()

    def _sum_of_rows(
        self, parameter: nn.Parameter, mine: Sequence[Tensor | None], codes: Sequence[int]
    ) -> Tensor:
        """A sparse gradient, added by the operation and in the order by which autograd adds."""
        W = self._processes.size
        counts = [max(code, 0) // 2 for code in codes]
        lengths = [sum(counts[rank::W]) for rank in range(W)]
        present = [gradient for gradient in mine if gradient is not None]
        none = torch.empty(0, dtype=torch.int64, device=parameter.device)
        ids = torch.cat([none, *(g._indices()[0] for g in present)])
        rows = torch.cat([parameter.new_empty(0, *parameter.shape[1:]), *(g._values() for g in present)])
        all_ids = self._processes.gather(ids, lengths)
        all_rows = self._processes.gather(rows, lengths)
        total: Tensor | None = None
        taken = [0] * W
        for place, (code, n) in enumerate(zip(codes, counts, strict=True)):
            if code == ABSENT:
                continue
            rank = place % W
            part = slice(taken[rank], taken[rank] + n)
            taken[rank] += n
            gradient = torch.sparse_coo_tensor(
                all_ids[rank][part][None],
                all_rows[rank][part],
                parameter.shape,
                is_coalesced=bool(code % 2),
                check_invariants=False,
            )
            total = gradient if total is None else total.add_(gradient)
        assert total is not None
        return total


def check_same_weights(model: nn.Module, processes: Processes, *, but: Collection[str] = ()) -> None:
    """Compare the weights of all processes by a checksum (CRC-32).

    Args:
        model: with the weights of this process.
        processes: that have the same ones.
        but: names of weights of which each has a part.

    Raises:
        RunError: they differ.
    """
    if processes.size == 1:
        return
    found = 0
    for name, value in model.state_dict().items():
        if name in but:
            continue
        found = zlib.crc32(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy(), found)
    all_found = processes.values(found)
    other = next((rank for rank, theirs in enumerate(all_found) if theirs != all_found[0]), None)
    if other is not None:
        raise RunError(
            f"process {other} came to other weights than process 0; train on machines with the same "
            "processors, libraries and number of threads"
        )


def _code(gradient: Tensor | None) -> int:
    if gradient is None:
        return ABSENT
    if not gradient.is_sparse:
        return DENSE
    return 2 * gradient._nnz() + int(gradient.is_coalesced())
