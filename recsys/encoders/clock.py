"""The interest clock: what a user prefers near an hour of the day, added to what the encoder knows.

A request at local time q pools the user's earlier events with weights that fall with the distance in time of
day, w = K(q - t) exp(-rate * age), K a learned mix of kernels of about 1, 1.5, 2 and 3 hours on the 24-hour
circle. Where the user has next to nothing near that hour, a learned prior, itself a smooth function of the
hour, takes over:

    pool(q) = (sum_j w_j e_j + p prior(q)) / (sum_j w_j + p),      state = hidden + gate(hidden) * W pool(q)

The request's time is known when an answer is asked for, so training reads the time of the event to be
predicted. It reads nothing else of that event.

Sources: Interest Clock (SIGIR 2024, arXiv:2404.19357) and Long-term Interest Clock (2025); the kernels are
`recsys.kernels.clock`.

Shapes: N events, B sequences, D = d_model.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch
from recsys.kernels.clock import (
    ClockState,
    clock_read,
    clock_state,
    clock_step,
    clock_sums,
    cosine_coefficients,
    highest_harmonic,
    hours_to_degree,
    initial_clock_state,
)
from recsys.kernels.clock.circle import DAY, circle_features
from recsys.kernels.linear import Linear

__all__ = ["NO_LOCAL_TIMES", "ClockedState", "HourHead", "InterestClock", "UserMemory"]

NO_LOCAL_TIMES = (
    "this encoder has a clock, which reads the local time of every event, and these have none: prepare the "
    "log with time_zone=, and pass times= with histories"
)

SIGMAS = (1.0, 1.5, 2.0, 3.0)
"""Hours; deviations of the kernels that are mixed."""

PRIOR_HARMONICS = 6
"""Degree of the prior in the hour: details down to four hours."""

DEGREE = max(highest_harmonic(hours_to_degree(sigma)) for sigma in SIGMAS)
"""Harmonics of the day that are summed: those of the narrowest kernel that single precision sees."""


@dataclass(frozen=True, slots=True, eq=False)
class UserMemory:
    """All that is needed to answer n users at any hour, without encoding their histories again.

    Attributes:
        hidden: (n, D) state of the encoder, without the hour.
        clock: sums of the interest clock.
        times: (n,) int64 local seconds of each user's last event, the hour read when none is given.
    """

    hidden: Tensor
    clock: ClockState
    times: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ClockedState:
    """Streaming state of n users: the encoder's own, and the clock's sums over all their events."""

    own: Any
    sums: ClockState


class InterestClock(nn.Module):
    """Pooling of a user's events by time of day, and its way into the hidden state.

    Args:
        width: D.
        n_items: V; mask tokens, whose indices begin at V, are not pooled.
        max_length: most events of a sequence, which chooses the kernel's form.
        half_life: days after which an event counts half, at the start of training; learned from there. 0
            lets events count the same however old.
        n_extra: mask tokens; indices behind them are items that came after training.
    """

    kernels: Tensor

    def __init__(self, width: int, n_items: int, max_length: int, half_life: float, n_extra: int = 0) -> None:
        super().__init__()
        self.n_items, self.n_extra, self.max_length = n_items, n_extra, max_length
        mixed = [cosine_coefficients(hours_to_degree(s), DEGREE + 1).float() for s in SIGMAS]
        self.register_buffer("kernels", torch.stack(mixed), persistent=False)
        self.mix = nn.Parameter(torch.zeros(len(SIGMAS)))
        self.log_rate = nn.Parameter(torch.tensor(math.log(math.log(2) / half_life))) if half_life else None
        self.log_prior = nn.Parameter(torch.zeros(()))
        self.prior = Linear(2 * PRIOR_HARMONICS + 1, width, bias=False)
        self.gate = Linear(width, width)
        self.out = Linear(width, width, bias=False)

    def initialize(self) -> None:
        """Start from the pooled items themselves: what was taken near this hour is what is wanted again."""
        with torch.no_grad():
            nn.init.eye_(self.out.weight)

    @property
    def coefficients(self) -> Tensor:
        """(M + 1,) of the mixed kernel."""
        return self.mix.softmax(0) @ self.kernels

    @property
    def rate(self) -> Tensor:
        """() decay of an event's weight per day of age."""
        return self.mix.new_zeros(()) if self.log_rate is None else self.log_rate.exp()

    def forward(self, hidden: Tensor, batch: SequenceBatch, vectors: Tensor) -> Tensor:
        """Add the clock to every event's state.

        Args:
            hidden: (N, D).
            batch: with local times and query times.
            vectors: (N, D) item vectors of the events.

        Raises:
            ArgumentError: the batch has no local times.
        """
        times, asked = _need_times(batch)
        sums = clock_sums(
            self._columns(batch.items, vectors),
            times,
            asked,
            batch.offsets,
            coefficients=self.coefficients,
            rate=self.rate,
            max_length=self.max_length,
        )
        return self._add(hidden, sums, asked)

    def remember(self, hidden: Tensor, batch: SequenceBatch, vectors: Tensor) -> UserMemory:
        """(B, D) states after whole sequences, to be read at any hour; no sequence may be empty."""
        times, _ = _need_times(batch)
        state = clock_state(self._columns(batch.items, vectors), times, batch.offsets, DEGREE, self.rate)
        return UserMemory(hidden, state, times[batch.last_rows()])

    def read(self, memory: UserMemory, asked: Tensor | None = None) -> Tensor:
        """(n, D) states at local times asked (n,); None is the time of each user's last event."""
        asked = memory.times if asked is None else asked
        return self._add(memory.hidden, clock_read(memory.clock, asked, self.coefficients, self.rate), asked)

    def initial_state(self, n: int) -> ClockState:
        """The sums of n users without events."""
        return initial_clock_state(n, DEGREE, self.out.weight.shape[1] + 1, self.mix.device)

    def step(self, state: ClockState, items: Tensor, vectors: Tensor, times: Tensor) -> ClockState:
        """Take one event of each user: items (n,), their vectors (n, D), local times (n,)."""
        return clock_step(state, self._columns(items, vectors), times, self.rate)

    def _columns(self, items: Tensor, vectors: Tensor) -> Tensor:
        """Item vectors with a column of ones, all zero for mask tokens."""
        events = (items < self.n_items) | (items >= self.n_items + self.n_extra)
        there = events.to(vectors.dtype)[:, None]
        return torch.cat((vectors * there, there), dim=1)

    def _add(self, hidden: Tensor, sums: Tensor, asked: Tensor) -> Tensor:
        prior_weight = self.log_prior.exp()
        prior = self.prior(circle_features(asked, PRIOR_HARMONICS))
        total = sums[:, -1:].clamp_min(0.0) + prior_weight
        pooled = (sums[:, :-1] + prior_weight * prior) / total
        added: Tensor = torch.sigmoid(self.gate(hidden)) * self.out(pooled).to(hidden.dtype)
        return hidden + added


class HourHead(nn.Module):
    """The plain baseline: a learned vector for the hour of each event and another for that of the request."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.event_hour = nn.Embedding(24, width)
        self.request_hour = nn.Embedding(24, width)

    def at_input(self, batch: SequenceBatch, tokens: Tensor) -> Tensor:
        """(N, D) to add to the events' item vectors; mask tokens (N,) have the hour asked for."""
        times, asked = _need_times(batch)
        return self.of_events(torch.where(tokens, asked, times))

    def at_output(self, batch: SequenceBatch) -> Tensor:
        """(N, D) to add to the states after the events."""
        return self.of_requests(_need_times(batch)[1])

    def of_events(self, times: Tensor) -> Tensor:
        """(n, D) for events at local times (n,)."""
        return self.event_hour(_hour(times))  # type: ignore[no-any-return]

    def of_requests(self, asked: Tensor) -> Tensor:
        """(n, D) for requests at local times (n,)."""
        return self.request_hour(_hour(asked))  # type: ignore[no-any-return]


def _hour(times: Tensor) -> Tensor:
    return times.remainder(DAY) // 3600


def _need_times(batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    if batch.local_times is None or batch.query_times is None:
        raise ArgumentError(NO_LOCAL_TIMES)
    return batch.local_times, batch.query_times
