"""Where the items of a window stand to the rows that are to predict: host integers, made with the batch.

Legend: N events, B sequences, M rows that predict, L longest sequence, T most rows of a sequence.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.repeats.occurrences import Occurrences, event_runs
from recsys.kernels.shared.packing import moved_together

Ints = NDArray[np.int64]

_FAR = 1 << 20
"""A place that no sequence reaches."""


@dataclass(frozen=True, slots=True, eq=False)
class RepeatLayout:
    """Events of packed sequences as the rows of the same sequences meet them.

    A place counts events within a sequence from 0. A row predicts what stands, or is to stand, at its place:
    an event k places before it or behind it lies k away.

    Attributes:
        items: (N,) int64; 0 where an event is not visible.
        visible: (N,) bool; a mask token is not.
        following: (N,) int32 place of the next visible event of the same item, far away if there is none.
        preceding: (N,) int32 of the one before, likewise.
        event_slots: (N,) int64 places of the events in a (B, L) array, flattened.
        places: (M,) int32.
        targets: (M,) int64 items at those places.
        row_slots: (M,) int64 places of the rows in a (B, T) array, flattened.
        event_offsets: (B + 1,) int32: events of sequence b are those from entry b to entry b + 1.
        row_offsets: (B + 1,) int32, likewise of the rows.
        shape: (B, T, L).
        occurrences: what else is known of the events, for weights of all occurrences; None without.
    """

    items: Tensor
    visible: Tensor
    following: Tensor
    preceding: Tensor
    event_slots: Tensor
    places: Tensor
    targets: Tensor
    row_slots: Tensor
    event_offsets: Tensor
    row_offsets: Tensor
    shape: tuple[int, int, int]
    occurrences: Occurrences | None = None

    @classmethod
    def of(
        cls,
        items: NDArray[np.integer],
        lengths: Ints,
        visible: NDArray[np.bool_],
        row_sequences: Ints,
        places: Ints,
        targets: NDArray[np.integer],
    ) -> "RepeatLayout":
        """Lay out a batch.

        Args:
            items: (N,).
            lengths: (B,) events of each sequence.
            visible: (N,).
            row_sequences: (M,) sequence of each row, ascending.
            places: (M,) place of each row in its sequence, at most the sequence's length.
            targets: (M,).
        """
        batch = len(lengths)
        sequence = np.repeat(np.arange(batch), lengths)
        place = np.arange(len(items)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = np.bincount(row_sequences, minlength=batch)
        order = np.arange(len(places)) - np.repeat(np.cumsum(rows) - rows, rows)
        longest, most = int(lengths.max(initial=0)), int(rows.max(initial=0))
        following = np.full(len(items), _FAR, dtype=np.int32)
        preceding = np.full(len(items), -_FAR, dtype=np.int32)
        seen = np.flatnonzero(visible)
        seen = seen[np.lexsort((place[seen], items[seen], sequence[seen]))]
        one, other = seen[:-1], seen[1:]
        same = (items[one] == items[other]) & (sequence[one] == sequence[other])
        following[one[same]] = place[other[same]]
        preceding[other[same]] = place[one[same]]
        return cls(
            torch.from_numpy(np.where(visible, items, 0).astype(np.int64)),
            torch.from_numpy(visible),
            torch.from_numpy(following),
            torch.from_numpy(preceding),
            torch.from_numpy(sequence * longest + place),
            torch.from_numpy(places.astype(np.int32)),
            torch.from_numpy(np.asarray(targets, dtype=np.int64)),
            torch.from_numpy(row_sequences * most + order),
            _offsets(lengths),
            _offsets(rows),
            (batch, most, longest),
        )

    def with_runs(self) -> "RepeatLayout":
        """The same with the runs of occurrences, if it knows occurrences; what a GPU is to be given."""
        own = self.occurrences
        if own is None or own.runs is not None:
            return self
        return replace(self, occurrences=replace(own, runs=event_runs(own.first, self.event_offsets)))

    def to(self, device: torch.device) -> "RepeatLayout":
        """The same on a device, from the CPU by one copy, with what the GPU's kernels read of occurrences."""
        if device.type == self.items.device.type:
            return self
        own = self.with_runs().occurrences
        names = [name for name in self.__slots__ if name not in ("shape", "occurrences")]
        known = [] if own is None else own.known
        tensors = [*(getattr(self, name) for name in names), *(getattr(own, name) for name in known)]
        moved = moved_together(tensors, device)
        changed: dict[str, Any] = dict(zip(names, moved, strict=False))
        if own is not None:
            changed["occurrences"] = replace(own, **dict(zip(known, moved[len(names) :], strict=True)))
        return replace(self, **changed)


def _offsets(lengths: Ints) -> Tensor:
    return torch.from_numpy(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
