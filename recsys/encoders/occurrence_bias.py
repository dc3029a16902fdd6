"""A learned bias of the items of a user's window by all of their occurrences: how often, when, at what hour.

The bias by the last occurrence (`repeat_bias`) does not know what a user does every morning. Here each
occurrence has a weight, and an item's bias is the log of their sum, as if the occurrences voted. With one
occurrence each, as where nobody repeats, it is the bias by distance again. Counting near the hour, the
baseline, is this with weights set by hand.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.encoders.repeat_bias import UNIT, Ints
from recsys.errors import ArgumentError
from recsys.jagged import flat_ranges
from recsys.kernels.repeats import RepeatLayout, occurrence_correction
from recsys.kernels.repeats.occurrences import (
    AGES,
    CLOCK,
    DAYS,
    HOURS,
    clock_buckets,
    distance_buckets,
    quarters,
)

__all__ = ["OccurrenceBias"]

Floats = NDArray[np.float32]

_NO_TIMES = "the bias of window items reads the clock: give it the events' local times and the request's"


class OccurrenceBias(nn.Module):
    """Weights of occurrences by distance and, with a clock, by hour, age and weekday.

    Args:
        n_buckets: K buckets of how many events ago: 1, 2 to 3, 4 to 7, ...; the last for all beyond.
        clock: whether the weights read local times, too; see `recsys.kernels.repeats.occurrences`.
    """

    def __init__(self, n_buckets: int, *, clock: bool) -> None:
        super().__init__()
        self.reads_clock = clock
        self.weight = nn.Parameter(torch.zeros(n_buckets + CLOCK * clock))

    @property
    def bias(self) -> Tensor:
        """(K,) or (K + CLOCK,) logs of the weights, in units of the scores."""
        return UNIT * self.weight

    def correction(
        self, hidden: Tensor, keys: Tensor, log_totals: Tensor, layout: RepeatLayout, **options: Any
    ) -> Tensor:
        """What is added to the full-softmax loss; arguments as of `occurrence_correction`."""
        bias = self.bias.to(hidden.dtype)
        return occurrence_correction(hidden, keys, log_totals, bias, layout, **options)

    def of_windows(
        self,
        items: NDArray[np.integer],
        starts: Ints,
        ends: Ints,
        window: int,
        local_times: Ints | None = None,
        asked: Ints | None = None,
    ) -> tuple[Ints, Ints, Floats]:
        """What windows hold, with its biases.

        Args:
            items: (N,) items of all events.
            starts: (R,) positions of the histories' first events.
            ends: (R,) positions past their last events.
            window: most events of a history that are looked at, the last ones.
            local_times: (N,) local seconds of the events, for a bias that reads the clock.
            asked: (R,) local seconds of the requests, likewise.

        Returns:
            ids (P,), distinct within a row, offsets (R+1,) and biases (P,).

        Raises:
            ArgumentError: the bias reads the clock and times are missing.
        """
        first = np.maximum(starts, ends - window)
        owner = np.repeat(np.arange(len(starts)), ends - first)
        position = flat_ranges(first, ends)
        found = items[position].astype(np.int64)
        logs = self._logs(ends[owner] - position, owner, position, local_times, asked)
        order = np.lexsort((found, owner))
        sorted_items, sorted_owner = found[order], owner[order]
        fresh = np.ones(len(order), dtype=np.bool_)
        fresh[1:] = (sorted_owner[1:] != sorted_owner[:-1]) | (sorted_items[1:] != sorted_items[:-1])
        kept = np.flatnonzero(fresh)
        sums = np.add.reduceat(np.exp(logs[order]), kept) if len(kept) else np.zeros(0)
        offsets = np.zeros(len(starts) + 1, dtype=np.int64)
        np.cumsum(np.bincount(sorted_owner[kept], minlength=len(starts)), out=offsets[1:])
        return sorted_items[kept], offsets, np.log(sums).astype(np.float32)

    def _logs(
        self,
        distance: Ints,
        owner: Ints,
        position: Ints,
        local_times: Ints | None,
        asked: Ints | None,
    ) -> NDArray[np.float64]:
        """(n,) logs of the weights of occurrences at positions, as rows `owner` meet them."""
        bias = self.bias.detach().double().cpu()
        far = torch.from_numpy(distance.astype(np.int32))
        if not self.reads_clock:
            logs: NDArray[np.float64] = bias[distance_buckets(far, len(bias))].numpy()
            return logs
        if local_times is None or asked is None:
            raise ArgumentError(_NO_TIMES)
        by_distance, *tables = bias.split((len(bias) - CLOCK, HOURS, AGES, DAYS))
        total = by_distance[distance_buckets(far, len(by_distance))]
        rows, events = (torch.from_numpy(np.asarray(x)) for x in (asked[owner], local_times[position]))
        for table, bucket in zip(tables, clock_buckets(quarters(rows), quarters(events)), strict=True):
            total = total + table[bucket]
        logs = total.numpy()
        return logs
