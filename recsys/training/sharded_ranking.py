"""Ranks among the whole catalog whose rows lie on several processes.

A process encodes its batches of users as ever and sends their states to all. Each counts how many of its own
items come before a target, and the counts are added. An item's score has the same bits in every table that it
stands in, so that these are the ranks of one process. A target's vector is put behind a process's own items
and ranked among these; what the vectors put there count among themselves is taken off.

Legend: R rows to rank, T distinct targets of a batch, W processes, d width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.items import ShardedItemEmbedding
from recsys.evaluation.encoder_functions import hidden_function
from recsys.evaluation.evaluate import evaluate_ranks
from recsys.evaluation.popularity import popularity_ranks
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.ranking_pass import RankTable, user_batches
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets
from recsys.jagged import flat_ranges
from recsys.kernels.ranking import rank_of_target
from recsys.kernels.shared.histories import copy_histories
from recsys.training.parallel_softmax import ParallelSoftmax
from recsys.training.processes import Processes

__all__ = ["VALIDATION_LOSS", "ShardedRanking"]

VALIDATION_LOSS = "loss"
"""Name of the validation loss among the metrics."""

BATCH_ROWS = 1024
"""Rows whose users a process encodes at once."""

OWN_COPY = {"pessimistic": 1.0, "optimistic": 0.0, "average": 0.5}
"""What an item that is as good counts in a rank, by the rule for ties."""


class ShardedRanking:
    """One validation; all processes make it together.

    Args:
        encoder: in evaluation mode, with the rows of this process.
        log: whose validation events are ranked, the same in all processes.
        processes: that have the rows.
        with_loss: whether the full softmax of the targets is wanted, too.
    """

    def __init__(
        self, encoder: SequenceEncoder, log: SequenceStore, processes: Processes, *, with_loss: bool
    ) -> None:
        table = encoder.item_embedding
        assert isinstance(table, ShardedItemEmbedding)
        self._encoder, self._table, self._log, self._processes = encoder, table, log, processes
        self._states = hidden_function(encoder, log)
        self._softmax = ParallelSoftmax(table, encoder.n_items, processes) if with_loss else None
        self._losses: Tensor | None = None

    def metrics(self, ks: Sequence[int], users: Ints | None) -> dict[str, float]:
        """Metrics on the validation events by name, with the loss if that is wanted.

        Args:
            ks: cut-offs.
            users: (M,) int64 users to consider; None for everyone.
        """
        result = evaluate_ranks(self._rank, self._log, "valid", "default", ks, users=users)
        if self._losses is None:
            return result.metrics
        return {**result.metrics, VALIDATION_LOSS: float(self._losses.sum()) / len(self._losses)}

    def _rank(
        self, targets: EvaluationTargets, rules: Protocol, cuts: tuple[int, ...], _: np.random.Generator
    ) -> RankTable:
        ahead = torch.zeros(2, targets.n_rows, dtype=torch.float64)
        losses = torch.zeros(targets.n_users, dtype=torch.float64)
        batches = user_batches(targets.row_offsets, BATCH_ROWS)
        size, rank = self._processes.size, self._processes.rank
        for first in range(0, len(batches), size):
            together = batches[first : first + size]
            mine = together[rank] if rank < len(together) else slice(0, 0)
            states = self._encoded(targets, mine)
            if self._softmax is not None:
                wanted = torch.from_numpy(targets.target[targets.first_rows[mine]]).to(states.device)
                losses[mine] = self._softmax.losses(states, wanted).cpu()
            users = slice(together[0].start, together[-1].stop)
            rows = slice(int(targets.row_offsets[users.start]), int(targets.row_offsets[users.stop]))
            everybody = torch.cat(self._processes.gather(states))
            place = np.repeat(
                np.arange(len(everybody)), np.diff(targets.row_offsets[users.start : users.stop + 1])
            )
            asked = everybody[torch.from_numpy(place).to(everybody.device)]
            ahead[:, rows] = self._ahead(asked, targets, np.arange(rows.start, rows.stop), rules.ties)
        kept, removed = 1 + self._processes.add_disjoint(ahead)
        if self._softmax is not None:
            self._losses = self._processes.add_disjoint(losses)
        whole = np.float64 if rules.ties == "average" else np.int64
        return RankTable(
            model={"kept": kept.numpy().astype(whole), "removed": removed.numpy().astype(whole)},
            popularity=popularity_ranks(self._log, targets, ties=rules.ties)._asdict(),
        )

    def _encoded(self, targets: EvaluationTargets, users: slice) -> Tensor:
        """(b, d) states of users of this process, for which all have rows fetched."""
        rows = targets.first_rows[users]
        starts, ends = targets.history_start[rows], targets.history_end[rows]
        recent = np.maximum(starts, ends - self._encoder.history_length)
        read = np.unique(self._log.items[flat_ranges(recent, ends)]).astype(np.int64)
        if len(rows):
            extra = self._encoder.n_items + np.arange(self._encoder.n_extra_items)
            read = np.concatenate((read, extra))
        weight = self._table.weight
        with self._table.held(torch.from_numpy(read).to(weight.device)):
            if not len(rows):
                return weight.new_empty(0, weight.shape[1])
            states: Tensor = self._states(rows, targets)
        return states.to(weight.dtype)

    def _ahead(self, states: Tensor, targets: EvaluationTargets, rows: Ints, ties: str) -> Tensor:
        """(2, R) float64: what items of this process add to ranks with seen items kept, and removed."""
        size, rank, device = self._processes.size, self._processes.rank, states.device
        n_own = self._table.n_own(self._encoder.n_items)
        own = self._table.weight.detach()[:n_own]
        wanted = targets.target[rows]
        distinct, places = np.unique(wanted, return_inverse=True)
        with self._table.held(torch.from_numpy(distinct).to(device)):
            vectors = self._table.items.detach()
        goals = torch.from_numpy(places).to(device)
        seen, offsets = copy_histories(
            self._log.items, targets.history_start[rows], targets.history_end[rows]
        )
        excluded = _of_process(seen, offsets, wanted, rank, size)
        found = rank_of_target(
            states,
            torch.cat((own, vectors)),
            goals + n_own,
            (torch.from_numpy(excluded[0]).to(device), torch.from_numpy(excluded[1]).to(device)),
            ties=ties,
        )
        among = rank_of_target(states, vectors, goals, ties=ties).kept
        copies = torch.from_numpy(wanted % size == rank).to(device).double() * OWN_COPY[ties]
        return torch.stack((found.kept - among - copies, (found.removed - among).double())).cpu()


def _of_process(seen: Ints, offsets: Ints, wanted: Ints, rank: int, size: int) -> tuple[Ints, Ints]:
    """The seen items of each row that a process has, and its target; places among its rows, and offsets."""
    rows = np.repeat(np.arange(len(wanted)), np.diff(offsets))
    items = np.concatenate((seen, wanted)).astype(np.int64)
    rows = np.concatenate((rows, np.arange(len(wanted))))
    here = items % size == rank
    items, rows = items[here] // size, rows[here]
    ends = np.bincount(rows, minlength=len(wanted)).cumsum()
    return items[rows.argsort(kind="stable")], np.concatenate(([0], ends))
