"""Ages of events as base-2 logarithms of their decay, counted from each sequence's first event."""

import math

import torch
from torch import Tensor

from recsys.kernels.clock.circle import DAY

__all__ = ["decay_logs"]


def decay_logs(times: Tensor, query_times: Tensor, offsets: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return y and x (N,) float64: the decay of event j at query i is 2^(x_j - y_i).

    Subtracting the sequence's first time as integers keeps the gradient of `rate` free of cancellation. A
    query before its own event counts as asked at it.
    """
    if len(times) == 0:
        return rate.double() * torch.zeros_like(times, dtype=torch.float64), torch.zeros_like(
            times, dtype=torch.float64
        )
    lengths = offsets.diff().long()
    starts = offsets[:-1].long().clamp_max(len(times) - 1)
    first = torch.repeat_interleave(times[starts], lengths, output_size=len(times))
    per_second = rate.double() * (math.log2(math.e) / DAY)
    asked = torch.maximum(query_times, times) - first
    return asked.double() * per_second, (times - first).double() * per_second
