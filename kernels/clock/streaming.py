"""The clock's state of a user: what a new event adds, and what a request at any hour reads."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from recsys.kernels.clock.circle import DAY, circle_features, weigh_features

__all__ = ["ClockState", "clock_read", "clock_state", "clock_step", "initial_clock_state"]


@dataclass(frozen=True, slots=True, eq=False)
class ClockState:
    """Sums over the past of n users, as of each user's last event.

    Attributes:
        sums: (n, 2M + 1, d) float32, sum over events of decay * features * values.
        times: (n,) int64 local seconds of the last event; 0 before the first.
    """

    sums: Tensor
    times: Tensor


def initial_clock_state(n: int, degree: int, width: int, device: torch.device | None = None) -> ClockState:
    """Return the state of n users without events, for kernels of degree M and values (d,)."""
    return ClockState(
        torch.zeros(n, 2 * degree + 1, width, device=device),
        torch.zeros(n, dtype=torch.int64, device=device),
    )


def clock_state(values: Tensor, times: Tensor, offsets: Tensor, degree: int, rate: Tensor) -> ClockState:
    """Return the state of B users after whole histories.

    Args:
        values: (N, d).
        times: (N,) int64 local seconds, non-decreasing within a sequence.
        offsets: (B + 1,) row bounds of the sequences.
        degree: M.
        rate: () decay per day, >= 0.
    """
    start = initial_clock_state(len(offsets) - 1, degree, values.shape[1], values.device)
    sums, last = [], []
    for user, (first, end) in enumerate(pairwise(offsets.tolist())):
        if first == end:
            sums.append(start.sums[user])
            last.append(start.times[user])
            continue
        features = circle_features(times[first:end], degree)
        decay = _decay(times[end - 1] - times[first:end], rate).to(features.dtype)
        sums.append((features * decay[:, None]).T @ values[first:end].to(features.dtype))
        last.append(times[end - 1])
    return ClockState(torch.stack(sums), torch.stack(last)) if sums else start


def clock_step(state: ClockState, values: Tensor, times: Tensor, rate: Tensor) -> ClockState:
    """Take one event of each of n users, O(M d) whatever the history.

    Args:
        state: of n users; left as it is.
        values: (n, d).
        times: (n,) int64 local seconds, not before the last event's.
        rate: () decay per day, >= 0.
    """
    degree = (state.sums.shape[1] - 1) // 2
    features = circle_features(times, degree, state.sums.dtype)
    decay = _decay(times - state.times, rate).to(state.sums.dtype)
    sums = state.sums * decay[:, None, None] + features[:, :, None] * values.to(state.sums.dtype)[:, None, :]
    return ClockState(sums, times)


def clock_read(state: ClockState, query_times: Tensor, coefficients: Tensor, rate: Tensor) -> Tensor:
    """Read the weighted sums (n, d) at any request times, without touching the state.

    Args:
        state: of n users.
        query_times: (n,) int64 local seconds; one before the last event counts as asked at it, its hour
            aside.
        coefficients: (M + 1,) of the kernel on the circle.
        rate: () decay per day, >= 0.
    """
    degree = len(coefficients) - 1
    features = weigh_features(circle_features(query_times, degree, state.sums.dtype), coefficients)
    decay = _decay(query_times - state.times, rate).to(state.sums.dtype)
    return torch.einsum("nf,nfd->nd", features, state.sums) * decay[:, None]


def _decay(age: Tensor, rate: Tensor) -> Tensor:
    return torch.exp(-rate.double() * (age.clamp_min(0).double() / DAY))
