"""Every occurrence of a window's items, as a learned weight of each reads them: how far back, at what hour.

Times are whole quarter hours of local time, so that what two of them have in common is integer arithmetic.
Legend: N events, M rows that predict, K buckets of distance.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "AGES",
    "CLOCK",
    "DAYS",
    "DAY_QUARTERS",
    "HOURS",
    "QUARTER",
    "Occurrences",
    "clock_buckets",
    "distance_buckets",
    "event_runs",
    "quarters",
]

Ints = NDArray[np.int64]

QUARTER = 900
"""Seconds of the unit in which times of day and ages are compared."""
DAY_QUARTERS = 86_400 // QUARTER

HOURS = 24
"""Buckets of the circular distance of two times of day: half an hour each, the last one from 11.5 to 12."""
AGES = 16
"""Buckets of the time between two events: below half an hour, 1, 2, 4, ... hours, and from 341 days on."""
DAYS = 3
"""The same day of the week; another one of the same kind, working day or weekend; one of the other kind."""
CLOCK = HOURS + AGES + DAYS
"""Weights that read the clock; they stand behind the K of the distance, in this order."""

_POWERS = 2 ** torch.arange(1, AGES, dtype=torch.int32)
_FRIDAY_TO_SATURDAY = 5
"""Weekday of 1970-01-01 counted from Saturday: days 0 and 1 of this count are the weekend."""


def quarters(local_times: Tensor) -> Tensor:
    """Local seconds as int32 quarter hours since 1970 began there."""
    return local_times.div(QUARTER, rounding_mode="floor").to(torch.int32)


def distance_buckets(distance: Tensor, count: int) -> Tensor:
    """Buckets of int32 distances in events: 1, 2 to 3, 4 to 7 and so on, the last for all beyond."""
    powers = 2 ** torch.arange(1, count, device=distance.device, dtype=torch.int32)
    return torch.bucketize(distance, powers, right=True, out_int32=True)


def clock_buckets(row: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Buckets of hour, age and day of pairs of quarter hours, shapes that broadcast."""
    apart = (row.remainder(DAY_QUARTERS) - event.remainder(DAY_QUARTERS)).abs()
    hour = (torch.minimum(apart, DAY_QUARTERS - apart) // 2).clamp_max(HOURS - 1)
    gap = (row - event).abs()
    age = torch.bucketize(gap, _POWERS.to(gap.device), right=True, out_int32=True)
    days = [
        (x.div(DAY_QUARTERS, rounding_mode="floor") + _FRIDAY_TO_SATURDAY).remainder(7) for x in (row, event)
    ]
    same_kind = (days[0] < 2) == (days[1] < 2)
    day = torch.where(days[0] == days[1], 0, torch.where(same_kind, 1, 2))
    return hour, age, day


def event_runs(first: Tensor, event_offsets: Tensor) -> Tensor:
    """Sort the events of each sequence by item, so that an item's occurrences are a run, in their order.

    Args:
        first: (N,) int32 as of `Occurrences`.
        event_offsets: (B + 1,) int32 as of `RepeatLayout`.

    Returns:
        (3, N) int32 by sorted place, which lies in the same sequence: the event, the first event of its run,
        and the sorted place of the last one.
    """
    starts, lengths = event_offsets[:-1], event_offsets.diff()
    owner = torch.repeat_interleave(starts, lengths, output_size=len(first)) + first
    heads, order = torch.sort(owner, stable=True)
    tails = torch.searchsorted(heads, heads, right=True) - 1
    return torch.stack([order.int(), heads.int(), tails.int()])


@dataclass(frozen=True, slots=True, eq=False)
class Occurrences:
    """What is known of the events of a `RepeatLayout`, so that all occurrences of an item count.

    Attributes:
        first: (N,) int32 place of the first visible event of the same item in its sequence.
        event_quarters: (N,) int32 local quarter hours of the events; None where weights read no clock.
        row_quarters: (M,) int32 of what the rows predict, likewise.
        runs: (3, N) int32 of `event_runs`, which the GPU's kernels read; None on the CPU.
    """

    first: Tensor
    event_quarters: Tensor | None
    row_quarters: Tensor | None
    runs: Tensor | None = None

    @classmethod
    def of(
        cls,
        items: NDArray[np.integer[Any]],
        lengths: Ints,
        visible: NDArray[np.bool_],
        event_times: Tensor | None = None,
        row_times: Tensor | None = None,
    ) -> "Occurrences":
        """Look up first occurrences.

        Args:
            items: (N,).
            lengths: (B,) events of each sequence.
            visible: (N,).
            event_times: (N,) int64 local seconds, or None.
            row_times: (M,) int64 local seconds of what the rows predict, or None.
        """
        sequence = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(items)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        seen = np.flatnonzero(visible)
        seen = seen[np.lexsort((place[seen], items[seen], sequence[seen]))]
        fresh = np.ones(len(seen), dtype=np.bool_)
        fresh[1:] = (items[seen[1:]] != items[seen[:-1]]) | (sequence[seen[1:]] != sequence[seen[:-1]])
        first = place.astype(np.int32)
        if len(seen):
            first[seen] = place[seen[np.flatnonzero(fresh)]][np.cumsum(fresh) - 1]
        return cls(
            torch.from_numpy(first),
            None if event_times is None else quarters(event_times),
            None if row_times is None else quarters(row_times),
        )

    @property
    def clocked(self) -> bool:
        """Whether times are known."""
        return self.event_quarters is not None

    @property
    def known(self) -> list[str]:
        """Names of the tensors that are there."""
        return [name for name in self.__slots__ if getattr(self, name) is not None]
