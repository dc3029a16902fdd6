"""Which rows each program of the GPU's attention kernels works on: a list made from lengths on the host.

A sequence of up to 64 events is one task: a program owns it whole, with others of its class (at most 16, 32
or 64 events) beside it, each in a slot of its own. A longer one is cut into blocks of 64 events from its
start. The class and the blocks follow from the sequence's own length, never from its batch.

Legend: N events, B sequences, P tasks.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import ArgumentError

__all__ = ["CLASSES", "TASK_ROWS", "AttentionSchedule"]

TASK_ROWS = 64
"""Events of a block of a long sequence."""

FIELDS = 2
"""Columns of `AttentionSchedule.tasks`, named as follows."""
SEQUENCE, BLOCK = range(FIELDS)

CLASSES = (64, 32, 16)
"""Most events of a sequence of each short class, in the order of the list."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionSchedule:
    """The work list of a batch, the same for every layer, head, direction and mask.

    Attributes:
        tasks: (P, 2) int32 pairs (sequence, block), on the device of the events: first the blocks of long
            sequences, the longest sequence and its last block first; then the sequences of each of
            `CLASSES`, longest first. May have unused rows at its end.
        counts: (4,) int64 on the CPU: tasks of long sequences and of each class.
    """

    tasks: Tensor
    counts: Tensor

    @classmethod
    def from_lengths(cls, lengths: NDArray[np.int64]) -> "AttentionSchedule":
        """Build the list on the CPU.

        Args:
            lengths: (B,) events of each sequence, 0 or more.

        Raises:
            ArgumentError: lengths are not one-dimensional non-negative integers.
        """
        sizes = np.asarray(lengths)
        if sizes.ndim != 1 or (sizes.size and (sizes.dtype.kind not in "iu" or sizes.min() < 0)):
            raise ArgumentError(
                f"AttentionSchedule: lengths is {sizes.dtype} of shape {sizes.shape}, want (B,) integers >= 0"
            )
        order = np.argsort(-sizes.astype(np.int64), kind="stable")
        ordered = sizes[order]
        # Ordered by length, so each class is one range: long, up to 64, up to 32, up to 16, empty.
        ends = [int((ordered > most).sum()) for most in (*CLASSES, 0)]
        blocks = -(-ordered[: ends[0]].astype(np.int64) // TASK_ROWS)
        last = np.cumsum(blocks)
        pairs = np.zeros((int(blocks.sum()) + ends[-1] - ends[0], 2), dtype=np.int32)
        cut = len(pairs) - (ends[-1] - ends[0])
        pairs[:cut, 0] = np.repeat(order[: ends[0]], blocks)
        pairs[:cut, 1] = np.repeat(last, blocks) - 1 - np.arange(cut)
        pairs[cut:, 0] = order[ends[0] : ends[-1]]
        return cls(torch.from_numpy(pairs), torch.tensor([cut, *np.diff(ends)], dtype=torch.int64))

    def to(self, device: torch.device | str) -> "AttentionSchedule":
        """The schedule with its list on `device`; the counts stay on the CPU."""
        return AttentionSchedule(self.tasks.to(device, non_blocking=True), self.counts)


@torch.library.custom_op("recsys::attention_schedule", mutates_args=(), device_types=("cuda", "cpu"))
def read_schedule(offsets: Tensor, events: int) -> tuple[Tensor, Tensor]:
    """Build tasks and counts from offsets (B + 1,) alone. On a GPU it waits for the device once.

    The list has room for the most tasks that N events of B sequences can give, so that its shape is known
    without reading the offsets.
    """
    schedule = AttentionSchedule.from_lengths(offsets.cpu().to(torch.int64).diff().numpy())
    tasks = torch.zeros((_most_tasks(offsets, events), 2), dtype=torch.int32)
    tasks[: len(schedule.tasks)] = schedule.tasks
    return tasks.to(offsets.device), schedule.counts


@read_schedule.register_fake
def _(offsets: Tensor, events: int) -> tuple[Tensor, Tensor]:
    tasks = offsets.new_empty((_most_tasks(offsets, events), 2), dtype=torch.int32)
    return tasks, torch.empty(1 + len(CLASSES), dtype=torch.int64)


def _most_tasks(offsets: Tensor, events: int) -> int:
    return offsets.shape[0] - 1 + events // TASK_ROWS
