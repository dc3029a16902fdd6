"""Lengths that resemble known logs, and the same events packed, padded and in buckets."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["BEAUTY", "DENSE", "LONG", "ML_1M", "Batch", "catalog", "draw_lengths"]

ML_1M, BEAUTY, DENSE, LONG = "ml-1m", "beauty", "dense", "long"

EVENTS = 40_000
"""Events of a batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B sequences of N events in all."""

    shape: str
    lengths: npt.NDArray[np.int64]
    offsets: Tensor
    """(B + 1,) int32."""

    @classmethod
    def make(cls, shape: str, device: torch.device, events: int = EVENTS) -> "Batch":
        """A batch of about so many events, the same in every run."""
        return cls.of(shape, draw_lengths(shape, events), device)

    @classmethod
    def of(cls, shape: str, lengths: npt.NDArray[np.int64], device: torch.device) -> "Batch":
        """A batch of these lengths."""
        offsets = torch.from_numpy(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
        return cls(shape, lengths, offsets.to(device))

    @property
    def events(self) -> int:
        """N."""
        return int(self.lengths.sum())

    @property
    def longest(self) -> int:
        """Of the sequences."""
        return int(self.lengths.max())

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.shape} ({len(self.lengths):,} x {self.lengths.mean():.0f}, max {self.longest})"

    def pairs(self, causal: bool) -> int:
        """Pairs of a query and a key that attention scores."""
        n = self.lengths
        return int((n * (n + 1) // 2 if causal else n * n).sum())

    def places(self) -> Tensor:
        """(N,) rows of the events in a (B, longest) array laid flat, each sequence at its row's start."""
        sequence = np.repeat(np.arange(len(self.lengths)), self.lengths)
        starts = np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        flat = sequence * self.longest + np.arange(self.events) - starts
        return torch.from_numpy(flat).to(self.offsets.device)

    def buckets(self, edges: Iterable[int] = (16, 32, 64, 128, 256)) -> list[tuple[Tensor, "Batch"]]:
        """Groups of sequences of like length: rows of their events, and the group as a batch."""
        starts = np.cumsum(self.lengths) - self.lengths
        found, low = [], 0
        for high in edges:
            chosen = np.flatnonzero((self.lengths > low) & (self.lengths <= high))
            low = high
            if len(chosen):
                rows = np.concatenate([np.arange(starts[i], starts[i] + self.lengths[i]) for i in chosen])
                device = self.offsets.device
                group = Batch.of(self.shape, self.lengths[chosen], device)
                found.append((torch.from_numpy(rows).to(device), group))
        return found


def catalog(items: int, events: int) -> int:
    """Items of a catalog: fewer, 25 for an event, where a batch is smaller than usual."""
    return min(items, 25 * events)


def draw_lengths(shape: str, events: int) -> npt.NDArray[np.int64]:
    """Lengths of about `events` events in all, always the same.

    ml-1m: mean 165, at most 200: windows of 200, of which three fifths are full. beauty: mean 9, 3 to 50.
    dense: all 200. long: mean 384, 257 to 512.
    """
    rng = np.random.default_rng(20_26)
    if shape == DENSE:
        return np.full(max(1, events // 200), 200)
    if shape == ML_1M:
        count = max(1, round(events / 165))
        full = rng.random(count) < 0.61
        return np.where(full, 200, rng.integers(20, 201, count))
    if shape == BEAUTY:
        count = max(1, round(events / 9))
        return np.minimum(2 + rng.geometric(1 / 7, count), 50)
    if shape == LONG:
        count = max(1, round(events / 384.5))
        return rng.permutation(np.linspace(512, 257, count).round().astype(np.int64))
    raise ValueError(f"unknown shape {shape!r}")
