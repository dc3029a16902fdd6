"""How the scan's GPU programs share the events of a batch: tasks, dealt to groups, from lengths on the host.

A task is a whole sequence, or a chunk of one longer than `LONG` events; chunks are counted from the
sequence's start. A group is the tasks that one program walks through, one after another. What a task
computes does not depend on its group, so dealing changes speed only.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.errors import ArgumentError

__all__ = ["CHUNK", "LONG", "MOST_GROUPS", "MOST_STATES", "ScanSchedule"]

LONG = 256
"""A sequence of more events than this is cut into chunks."""

CHUNK = 128
"""Events of a chunk."""

MOST_GROUPS = 1024
"""Programs per block of channels: eight per multiprocessor of the largest chips."""

MOST_STATES = 64
"""The largest d_state that the GPU kernels take."""

FIELDS = 4
"""Columns of `ScanSchedule.tasks`, `chunks` and `chains`, named as follows."""
FIRST_EVENT, EVENTS, SEQUENCE, SLOT = range(FIELDS)  # of a task or a chunk
FIRST_SLOT, SLOTS = range(2)  # of a chain, whose third is SEQUENCE too

_ALIGNMENT = 4  # int32 elements: 16 bytes, which Triton's generated code knows of


@dataclass(frozen=True, slots=True, eq=False)
class ScanSchedule:
    """Work list of one batch for `selective_scan` on a GPU; valid for these lengths alone.

    Attributes:
        tasks: (P, 4) int32: first event, number of events, sequence, row of `chunks` or -1 for a whole
            sequence. Empty sequences are tasks too: their states are handed on.
        bounds: (G + 1,) int32: group g holds the tasks bounds[g] to bounds[g + 1], the fullest group first.
        chunks: (K, 4) int32: the tasks that are chunks, in order.
        chains: (L, 4) int32, one row per long sequence: first row of `chunks`, number of chunks, sequence, 0.
        sequences: B.
        events: N.
    """

    tasks: Tensor
    bounds: Tensor
    chunks: Tensor
    chains: Tensor
    sequences: int
    events: int

    @classmethod
    def from_lengths(cls, lengths: npt.ArrayLike, device: torch.device | str | None = None) -> "ScanSchedule":
        """Deal B sequences to groups.

        Args:
            lengths: (B,) non-negative integers on the host.
            device: where the kernels will run; one copy is sent there, without waiting for it.

        Raises:
            ArgumentError: a length is negative, or they sum to 2^31 or more.
        """
        sizes = np.asarray(lengths, dtype=np.int64).reshape(-1)
        if len(sizes) and (int(sizes.min()) < 0 or int(sizes.sum()) >= 2**31):
            raise ArgumentError("lengths are negative or sum to 2^31 events or more; make smaller batches")
        starts = np.cumsum(sizes) - sizes
        tasks, chunks, chains = _cut(starts, sizes)
        order, bounds = _deal(tasks[:, 1])
        parts = [x.astype(np.int32) for x in (tasks[order], bounds, chunks, chains)]
        packed, places = _pack(parts)
        sent = torch.from_numpy(packed)
        if device is not None:
            sent = sent.to(device, non_blocking=True)
        views = [sent[at : at + part.size].view(part.shape) for at, part in zip(places, parts, strict=True)]
        return cls(views[0], views[1], views[2], views[3], len(sizes), int(sizes.sum()))

    @classmethod
    def from_offsets(cls, offsets: Tensor) -> "ScanSchedule":
        """Make the schedule of offsets (B + 1,); waits for the device where they lie on one."""
        return cls.from_lengths(offsets.cpu().long().diff().numpy(), offsets.device)


def _cut(
    starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut long sequences into chunks: all tasks in order, the chunks alone, a row per long sequence."""
    long = sizes > LONG
    counts = np.where(long, -(-sizes // CHUNK), 1)
    sequence = np.repeat(np.arange(len(sizes)), counts)
    number = np.arange(len(sequence)) - np.repeat(np.cumsum(counts) - counts, counts)
    chunked = long[sequence]
    slot = np.where(chunked, np.cumsum(chunked) - 1, -1)
    events = np.where(chunked, np.minimum(sizes[sequence] - number * CHUNK, CHUNK), sizes[sequence])
    tasks = np.stack([starts[sequence] + number * CHUNK, events, sequence, slot], axis=1)
    sequences = np.flatnonzero(long)
    first = np.cumsum(counts[long]) - counts[long]
    chains = np.stack([first, counts[long], sequences, np.zeros_like(sequences)], axis=1)
    return tasks, tasks[chunked], chains


def _deal(events: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Deal tasks to groups, longest first, to and fro: (order of the tasks, bounds of the groups)."""
    rounds = max(1, -(-len(events) // MOST_GROUPS))
    groups = -(-len(events) // rounds)
    longest_first = np.argsort(-events, kind="stable")
    turn, place = np.divmod(np.arange(len(events)), max(groups, 1))
    group = np.where(turn % 2 == 0, place, groups - 1 - place)
    load = np.bincount(group, weights=events[longest_first], minlength=groups)
    rank = np.empty(groups, dtype=np.int64)
    rank[np.argsort(-load, kind="stable")] = np.arange(groups)
    order = np.argsort(rank[group], kind="stable")
    sizes = np.bincount(rank[group], minlength=groups)
    return longest_first[order], np.concatenate([[0], np.cumsum(sizes)])


def _pack(parts: list[npt.NDArray[np.int32]]) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Lay arrays end to end, each aligned: one copy to the device instead of four."""
    places, at = [], 0
    for part in parts:
        places.append(at)
        at += -(-part.size // _ALIGNMENT) * _ALIGNMENT
    packed = np.zeros(at, dtype=np.int32)
    for place, part in zip(places, parts, strict=True):
        packed[place : place + part.size] = part.ravel()
    return packed, places
