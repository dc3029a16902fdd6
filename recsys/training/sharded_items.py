"""The item table in rows over W processes: process r has the rows r, r + W, r + 2 W, ... and their moments.

A batch touches few rows. They are asked for before it is encoded, and their gradients are sent back to whom
the rows belong to, who adds them in the order of the batches' places in the group: by the operation and in
the order of one process with the whole table. Bytes sent for n rows of width d are (8 + 8 d) n, whatever the
size of the catalog.

All processes do the same at the same time: one that has no batch where others have one asks for nothing and
sends nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from recsys.encoders.base import SequenceEncoder
from recsys.encoders.items import ItemEmbedding, ShardedItemEmbedding
from recsys.errors import ConfigError, RunError
from recsys.kernels.embedding import merge_rows
from recsys.training.exact_norm import exact_norm
from recsys.training.item_files import ItemFile, is_of_rows, save_rows
from recsys.training.optimizer import clip_gradients
from recsys.training.parallel_softmax import ParallelSoftmax
from recsys.training.processes import Processes

__all__ = ["ShardedItems", "check_shardable", "clip_with_items"]

GATHERED = 1 << 18
"""Rows of a process that travel at once when the table is put together."""

Batch = TypeVar("Batch")


def check_shardable(encoder: SequenceEncoder, processes: int, *, weighted: bool = False) -> None:
    """Refuse items that are more than rows of one table, fewer than the processes, or weighted as targets.

    Raises:
        ConfigError: see above.
    """
    config = encoder.config
    for wrong, setting in (
        (
            config.item_hashes > 0,
            f"encoder.item_hashes = {config.item_hashes} (set 0, or keep the table small)",
        ),
        (config.item_parts != "id", f"encoder.item_parts = {config.item_parts!r} (set 'id')"),
        (not config.tie_items, "encoder.tie_items = false (set true)"),
        (config.repeat_bias > 0, f"encoder.repeat_bias = {config.repeat_bias} (set 0)"),
        (weighted, "weights or targets of events, or training.propensity_power (prepare without, set 0)"),
        (not isinstance(encoder.item_embedding, ItemEmbedding | ShardedItemEmbedding), "items of its own"),
    ):
        if wrong:
            raise ConfigError(
                "training.shard_items puts the rows of one item table on several processes, which does not "
                f"go with {setting}: change it, or set training.shard_items = false"
            )
    if encoder.n_items < processes:
        raise ConfigError(
            f"{encoder.n_items} items cannot be shared out to {processes} processes: set "
            "training.shard_items = false"
        )


def clip_with_items(encoder: SequenceEncoder, largest: float, table: Tensor, processes: Processes) -> None:
    """Scale all gradients down to a common norm of at most `largest`, the same on any number of processes.

    Args:
        encoder: with gradients.
        largest: norm that they may have.
        table: parameter of items, of which each process has some rows or one has all.
        processes: that have the rows.
    """
    clip_gradients(encoder, largest, table=table, table_norm=lambda rows: exact_norm(rows, processes))


class ShardedItems:
    """The rows of one process, put into an encoder in the place of its table.

    Args:
        encoder: with the rows of this process, or with the whole table, the same in all processes.
        processes: that have the rows.
        softmax: label smoothing and temperature of the full softmax, which is then taken over all processes;
            None for a sampled loss.
    """

    def __init__(
        self, encoder: SequenceEncoder, processes: Processes, softmax: tuple[float, float] | None
    ) -> None:
        table = encoder.item_embedding
        if isinstance(table, ItemEmbedding):
            table = ShardedItemEmbedding.of(table, processes.rank, processes.size)
            encoder.item_embedding = table
        assert isinstance(table, ShardedItemEmbedding)
        self._encoder, self._processes = encoder, processes
        self.table = table
        table.connect(self.fetch)
        self.softmax: ParallelSoftmax | None = None
        if softmax is not None:
            self.softmax = ParallelSoftmax(self.table, encoder.n_items, processes, *softmax)
        self._route: tuple[Tensor, list[int], list[Tensor]] | None = None
        self._sum: Tensor | None = None

    @property
    def weight(self) -> nn.Parameter:
        """The rows of this process."""
        return self.table.weight

    def rounds(self, group: Sequence[Batch], size: int) -> Iterator[Batch | None]:
        """The batches of this process, one after another, and None where others alone have one.

        Args:
            group: those of this process.
            size: of all.
        """
        yield from group
        yield from [None] * (-(-size // self._processes.size) - len(group))

    def fetch(self, ids: Tensor) -> Tensor:
        """(n, D) rows of items (n,), ascending and distinct; each process asks for its own."""
        W, weight = self._processes.size, self.weight.detach()
        owners = ids % W
        order = owners.argsort(stable=True)
        counts = owners.bincount(minlength=W).tolist()
        wanted = self._processes.exchange((ids // W)[order].split(counts))
        found = self._processes.exchange([weight[rows] for rows in wanted], counts)
        out = weight.new_empty(len(ids), weight.shape[1])
        out[order] = torch.cat(found)
        self._route = order, counts, wanted
        return out

    def idle(self, row_weight: float) -> None:
        """Take part where others have a batch and this process has none.

        Args:
            row_weight: of a target in the loss of the group.
        """
        self.fetch(torch.empty(0, dtype=torch.int64, device=self.weight.device))
        if self.softmax is not None:
            self.softmax.idle(row_weight)
        self._give_back(self.weight.new_empty(0, self.weight.shape[1]))

    def give_back(self) -> None:
        """Send the gradients of the rows at hand to whom these belong to, and add up what comes in.

        Raises:
            RunError: the encoder has not looked up all items of its batch.
        """
        rows = self.table.at_hand
        assert rows is not None
        gradient = rows.grad
        if gradient is not None and gradient.is_sparse:
            gradient = merge_rows(gradient)
            gradient = gradient._values() if gradient._nnz() == len(rows) else None
        if gradient is None:
            raise RunError(
                "the encoder has not looked up every item that it was given, as training.shard_items needs "
                "it to; set training.shard_items = false"
            )
        self.table.at_hand = None
        self._give_back(gradient)

    def _give_back(self, gradient: Tensor) -> None:
        assert self._route is not None
        order, counts, wanted = self._route
        self._route = None
        found = self._processes.exchange(gradient[order].split(counts), [len(rows) for rows in wanted])
        # By rank: the order of the places that have their turn.
        for rows, values in zip(wanted, found, strict=True):
            if len(rows):
                part = self._sparse(rows, values)
                self._sum = part if self._sum is None else self._sum.add_(part)

    def give(self) -> None:
        """Put the sum over the group into the gradient of the table."""
        weight, total = self.weight, self._sum
        self._sum = None
        if total is None:
            none = torch.empty(0, dtype=torch.int64, device=weight.device)
            total = self._sparse(none, weight.new_empty(0, weight.shape[1]))
        if self.softmax is None:
            weight.grad = total
            return
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, total._indices()[0], total._values())

    def _sparse(self, rows: Tensor, values: Tensor) -> Tensor:
        return torch.sparse_coo_tensor(
            rows[None], values, self.weight.shape, is_coalesced=True, check_invariants=False
        )

    def save(
        self, folder: Path | None, place: str, tensors: Mapping[str, Tensor]
    ) -> tuple[list[ItemFile], dict[str, Tensor]]:
        """Write the rows of a checkpoint, each process its own.

        Args:
            folder: of the checkpoint; None writes none of them, and asks nothing of the other processes.
            place: where training stands, as `Progress` names it.
            tensors: of the checkpoint.

        Returns:
            The files of all processes, and the tensors that have no rows.

        Raises:
            RunError: a process cannot write.
        """
        rows = {name: value for name, value in tensors.items() if is_of_rows(name, value)}
        rest = {name: value for name, value in tensors.items() if name not in rows}
        if folder is None:
            return [], rest
        rank, size = self._processes.rank, self._processes.size
        path = folder / f"items-{place}-{rank}-of-{size}.safetensors"
        with self._processes.agreeing():
            told = save_rows(path, rows, rank, size).to_json()
        return [ItemFile(**each) for each in self._processes.values(told)], rest

    def put_together(self) -> None:
        """Give the encoder of process 0 the whole table; those of the others answer no more."""
        W, weight = self._processes.size, self.weight.detach()
        first_process = self._processes.rank == 0
        whole = weight.new_empty(self.table.n_rows if first_process else 0, weight.shape[1])
        for first in range(0, -(-self.table.n_rows // W), GATHERED):
            part = weight[first : first + GATHERED]
            ranges = [range(q + first * W, self.table.n_rows, W)[:GATHERED] for q in range(W)]
            lengths = [len(rows) if first_process else 0 for rows in ranges]
            found = self._processes.exchange([part, *[part[:0]] * (W - 1)], lengths)
            if first_process:
                for rows, values in zip(ranges, found, strict=True):
                    whole[rows.start : rows.start + len(rows) * W : W] = values
        self.table.close()
        if first_process:
            self._encoder.item_embedding = ItemEmbedding(len(whole), whole.shape[1], _weight=whole)
