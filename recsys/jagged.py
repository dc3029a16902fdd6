"""The one shape of the data inside the engine: sequences packed end to end, with offsets.

Shape letters used throughout the engine: N events of a batch, B sequences, D = ``d_model``,
V items of the catalog.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.attention.schedule import AttentionSchedule
from recsys.kernels.scan.schedule import ScanSchedule


@dataclass(frozen=True, slots=True, eq=False)
class SequenceBatch:
    """B sequences of N events in all, packed without padding.

    Attributes:
        items: (N,) int64, item indices in [0, V); BERT4Rec's mask token is V.
        offsets: (B+1,) int32; sequence b is ``items[offsets[b]:offsets[b+1]]`` and may be empty.
        lengths: B host integers, so that nobody has to ask the device for them.
        timestamps: (N,) int64 unix seconds, or None for logs that carry order alone.
        local_times: (N,) int64 seconds of each event's local time (unix seconds plus the offset of its time
            zone), or None where no zone is known.
        query_times: (N,) int64 local seconds at which the state after each event is asked for: in training
            the time of what is to be predicted, in a request its own; None without local times.
        event_codes: (N, E) int64 codes of what came with each event, or None where nothing is known.
        request_codes: (N, R) int64 codes of what is known of the request that the state after each event
            answers, or None where nothing is.
        weights: (N,) float32 how much predicting each event counts, 0 for one that is context alone; None
            where all count alike.
    """

    items: Tensor
    offsets: Tensor
    lengths: npt.NDArray[np.int64]
    timestamps: Tensor | None = None
    local_times: Tensor | None = None
    query_times: Tensor | None = None
    event_codes: Tensor | None = None
    request_codes: Tensor | None = None
    weights: Tensor | None = None
    _schedules: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_lengths(
        cls,
        items: npt.ArrayLike,
        lengths: npt.ArrayLike,
        timestamps: npt.ArrayLike | None = None,
        local_times: npt.ArrayLike | None = None,
        *,
        event_codes: npt.ArrayLike | None = None,
        request_codes: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> "SequenceBatch":
        """Pack items that already lie end to end.

        Args:
            items: (N,) integers.
            lengths: (B,) integers summing to N.
            timestamps: (N,) unix seconds or None.
            local_times: (N,) local seconds or None; each event is asked at its own time until
                :meth:`asked_at` says otherwise.
            event_codes: (N, E) codes of what came with each event, or None.
            request_codes: (N, R) codes of what was known before each event, or None: training asks for an
                event with its own.
            weights: (N,) how much predicting each event counts, or None.

        Raises:
            ArgumentError: the lengths do not sum to N, or there are not N of what belongs to each event.
        """
        flat = np.array(items, dtype=np.int64)
        sizes = np.asarray(lengths, dtype=np.int64)
        if int(sizes.sum()) != len(flat) or (len(sizes) and int(sizes.min()) < 0):
            raise ArgumentError(f"lengths sum to {int(sizes.sum())} but there are {len(flat)} items")
        offsets = np.zeros(len(sizes) + 1, dtype=np.int32)
        np.cumsum(sizes, out=offsets[1:])
        times = _one_each(timestamps, len(flat), "timestamps")
        local = _one_each(local_times, len(flat), "local times")
        return cls(
            torch.from_numpy(flat),
            torch.from_numpy(offsets),
            sizes,
            times,
            local,
            local,
            _one_each(event_codes, len(flat), "codes of events"),
            _one_each(request_codes, len(flat), "codes of requests"),
            None if weights is None else torch.from_numpy(np.array(weights, dtype=np.float32)),
        )

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[npt.ArrayLike],
        timestamps: Sequence[npt.ArrayLike] | None = None,
        local_times: Sequence[npt.ArrayLike] | None = None,
        *,
        event_codes: Sequence[npt.ArrayLike] | None = None,
    ) -> "SequenceBatch":
        """Pack a list of item-index sequences, any of which may be empty, their events' times and codes."""
        items = _concatenate(sequences)
        times = None if timestamps is None else _concatenate(timestamps)
        local = None if local_times is None else _concatenate(local_times)
        codes = None if event_codes is None else np.concatenate([np.asarray(own) for own in event_codes])
        lengths = [len(np.asarray(s)) for s in sequences]
        return cls.from_lengths(items, lengths, times, local, event_codes=codes)

    @property
    def batch_size(self) -> int:
        """B, the number of sequences."""
        return len(self.lengths)

    @property
    def n_events(self) -> int:
        """N, the number of events."""
        return int(self.items.shape[0])

    @property
    def max_length(self) -> int:
        """Length of the longest sequence, 0 for an empty batch."""
        return int(self.lengths.max()) if len(self.lengths) else 0

    @property
    def attention_schedule(self) -> AttentionSchedule | None:
        """Work list of attention on the GPU, made on first use and kept; None for a batch on the CPU."""
        if not self.items.is_cuda:
            return None
        if "attention" not in self._schedules:
            schedule = AttentionSchedule.from_lengths(self.lengths)
            self._schedules["attention"] = schedule.to(self.items.device)
        return self._schedules["attention"]  # type: ignore[no-any-return]

    @property
    def scan_schedule(self) -> ScanSchedule | None:
        """Work list of the selective scan on the GPU, likewise."""
        if not self.items.is_cuda:
            return None
        if "scan" not in self._schedules:
            self._schedules["scan"] = ScanSchedule.from_lengths(self.lengths, self.items.device)
        return self._schedules["scan"]  # type: ignore[no-any-return]

    @property
    def places(self) -> Tensor | None:
        """(N,) int32 :meth:`positions` for the convolution on the GPU, likewise."""
        if not self.items.is_cuda:
            return None
        if "places" not in self._schedules:
            self._schedules["places"] = self.positions().int()
        return self._schedules["places"]  # type: ignore[no-any-return]

    def positions(self) -> Tensor:
        """(N,) int64: index of each event inside its sequence, counted from 0."""
        starts = np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        return self._on_device(np.arange(self.n_events, dtype=np.int64) - starts)

    def reversed_positions(self) -> Tensor:
        """(N,) int64: index of each event counted from the end of its sequence, 0 for the last."""
        ends = np.repeat(np.cumsum(self.lengths), self.lengths)
        return self._on_device(ends - 1 - np.arange(self.n_events, dtype=np.int64))

    def last_rows(self) -> Tensor:
        """(B,) int64: row of each sequence's last event.

        Raises:
            ArgumentError: a sequence is empty and so has no last event.
        """
        if len(self.lengths) and int(self.lengths.min()) == 0:
            raise ArgumentError("an empty sequence has no last event; give every user at least one event")
        return self._on_device(np.cumsum(self.lengths) - 1)

    def first_rows(self) -> Tensor:
        """(B',) int64: row of the first event of each of the B' sequences that are not empty."""
        return self._on_device((np.cumsum(self.lengths) - self.lengths)[self.lengths > 0])

    def next_item_rows(self) -> Tensor:
        """(N - B',) int64: rows whose successor lies in the same sequence (B' non-empty sequences)."""
        keep = np.ones(self.n_events, dtype=bool)
        keep[(np.cumsum(self.lengths) - 1)[self.lengths > 0]] = False
        return self._on_device(np.flatnonzero(keep))

    def asked_at(self, local_times: Tensor) -> "SequenceBatch":
        """The batch with the state after each sequence asked for at local times (B,); empty ones ignored.

        Raises:
            ArgumentError: the batch has no local times.
        """
        if self.query_times is None:
            raise ArgumentError("a batch without local times cannot be asked at one")
        filled = self._on_device(np.flatnonzero(self.lengths > 0))
        last = self._on_device((np.cumsum(self.lengths) - 1)[self.lengths > 0])
        return replace(self, query_times=self.query_times.index_copy(0, last, local_times[filled]))

    def asked_in(self, codes: Tensor | None) -> "SequenceBatch":
        """The batch with the state after each sequence asked for by requests of which something is known.

        Args:
            codes: (B, R) int64; None where nothing is known. Those of empty sequences are ignored.

        Raises:
            ArgumentError: not codes for each sequence.
        """
        if codes is None:
            return self if self.request_codes is None else replace(self, request_codes=None)
        if len(codes) != self.batch_size:
            raise ArgumentError(f"codes of {len(codes)} requests for {self.batch_size} sequences")
        filled = self._on_device(np.flatnonzero(self.lengths > 0))
        last = self._on_device((np.cumsum(self.lengths) - 1)[self.lengths > 0])
        asked = codes.new_zeros(self.n_events, codes.shape[1])
        return replace(self, request_codes=asked.index_copy(0, last, codes[filled]))

    def append(
        self, item: int, timestamps: Tensor | None = None, local_times: Tensor | None = None
    ) -> "SequenceBatch":
        """A batch with ``item`` after the last event of every sequence, empty ones included.

        Args:
            item: what to append.
            timestamps: (B,) int64 times of the appended events; None repeats each sequence's last time (0
                where it is empty). A batch without times stays without.
            local_times: (B,) int64 local times at which the appended events are asked for, likewise. One
                before the last event's keeps its place in order: its own local time is then the last one's.
        """
        ends = np.cumsum(self.lengths)
        rows = self._on_device(np.delete(np.arange(len(ends) + self.n_events), ends + np.arange(len(ends))))
        items = torch.full((self.n_events + self.batch_size,), item, device=self.items.device)
        items[rows] = self.items
        places = self._on_device(ends + np.arange(len(ends)))
        filled = self._on_device(np.flatnonzero(self.lengths > 0))

        def extended(old: Tensor | None, added: Tensor | None) -> Tensor | None:
            if old is None:
                return None
            new = torch.zeros_like(items)
            new[rows] = old
            if added is not None:
                new[places] = added
            else:
                new[places[filled]] = new[places[filled] - 1]
            return new

        times = extended(self.timestamps, timestamps)
        local = extended(self.local_times, local_times)
        asked = extended(self.query_times, local_times)
        if local is not None and asked is not None:
            if local_times is None:
                asked[places] = local[places]
            before = places[filled] - 1
            local[places[filled]] = torch.maximum(local[places[filled]], local[before])
        codes = None
        if self.event_codes is not None:  # nothing came with what is appended
            codes = self.event_codes.new_zeros(len(items), self.event_codes.shape[1])
            codes[rows] = self.event_codes
        offsets = self.offsets + torch.arange(
            self.batch_size + 1, dtype=self.offsets.dtype, device=self.offsets.device
        )
        return SequenceBatch(items, offsets, self.lengths + 1, times, local, asked, codes)

    def with_items(self, items: Tensor) -> "SequenceBatch":
        """The same sequences with other items of the same shape, as Cloze masking needs."""
        return replace(self, items=items)

    def to(self, device: torch.device | str) -> "SequenceBatch":
        """The batch with its tensors on ``device``."""

        def moved(times: Tensor | None) -> Tensor | None:
            return None if times is None else times.to(device, non_blocking=True)

        return SequenceBatch(
            self.items.to(device, non_blocking=True),
            self.offsets.to(device, non_blocking=True),
            self.lengths,
            moved(self.timestamps),
            moved(self.local_times),
            moved(self.query_times),
            moved(self.event_codes),
            moved(self.request_codes),
            moved(self.weights),
        )

    def _on_device(self, array: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.items.device, non_blocking=True)


def _one_each(values: npt.ArrayLike | None, n: int, what: str) -> Tensor | None:
    if values is None:
        return None
    found = torch.from_numpy(np.array(values, dtype=np.int64))
    if len(found) != n:
        raise ArgumentError(f"{len(found)} {what} for {n} items")
    return found


def _concatenate(sequences: Sequence[npt.ArrayLike]) -> npt.NDArray[np.int64]:
    arrays = [np.asarray(s, dtype=np.int64) for s in sequences]
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def flat_ranges(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Concatenated ``arange(starts[i], ends[i])``, without a Python loop.

    Args:
        starts: (R,) int64.
        ends: (R,) int64, each at least its start.

    Returns:
        (sum(ends - starts),) int64.
    """
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    flat: npt.NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return flat
