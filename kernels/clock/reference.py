"""The interest clock's pooling in plain PyTorch: the definitions that kernels are tested against.

`clock_sums` is the continuous form: event i, asked about time q_i, sums the values of its sequence's events
j <= i with weights  w_ij = K(q_i - t_j) exp(-rate (max(q_i, t_i) - t_j)),  K a kernel on the 24-hour circle.
`bucket_clock` is the published form: preferences per hour of day, smoothed by a Gaussian over hours.

Sources: Interest Clock (SIGIR 2024, arXiv:2404.19357); Long-term Interest Clock (2025), for exact times.
"""

from itertools import pairwise

import torch
from torch import Tensor

from recsys.kernels.clock.call import ClockCall
from recsys.kernels.clock.circle import DAY, evaluate_kernel

__all__ = ["bucket_clock", "clock_sums", "clock_weights", "gaussian_kernel"]


def clock_weights(
    times: Tensor, query_times: Tensor, coefficients: Tensor, rate: Tensor, kernel: Tensor | None = None
) -> Tensor:
    """Weights (L, L) of one sequence: row i pools events j <= i, the others are zero.

    Args:
        times: (L,) int64 local seconds, non-decreasing.
        query_times: (L,) int64 local seconds.
        coefficients: (M + 1,) of K, see `circle.cosine_coefficients`.
        rate: () decay of weights per day of age, >= 0.
        kernel: (L, L) values of another K, such as `gaussian_kernel`'s; `coefficients` are then not read.
    """
    if kernel is None:
        kernel = evaluate_kernel(query_times[:, None] - times[None, :], coefficients)
    age = torch.maximum(query_times, times)[:, None] - times[None, :]
    decay = torch.exp(-rate.to(kernel.dtype) * (age.clamp_min(0).to(kernel.dtype) / DAY))
    return (kernel * decay).tril()


def clock_sums(call: ClockCall) -> Tensor:
    """Return the weighted sums (N, d), in the dtype of `values`."""
    values, times, query_times = call.values, call.times, call.query_times
    coefficients, rate = call.coefficients, call.rate
    sums = []
    for start, end in pairwise(call.offsets.tolist()):
        if start == end:
            continue
        weights = clock_weights(times[start:end], query_times[start:end], coefficients.to(values.dtype), rate)
        sums.append(weights @ values[start:end])
    if sums:
        return torch.cat(sums)
    return values * (coefficients.sum() * rate * 0.0).to(values.dtype)  # no events: nothing, with gradients


def gaussian_kernel(gap: Tensor, sigma: float) -> Tensor:
    """Return the wrapped Gaussian exp(-circ(gap)^2 / 2 sigma^2) in float64.

    Args:
        gap: seconds, any shape.
        sigma: standard deviation in hours. Distance is circular: 23:30 and 00:30 are an hour apart.
    """
    around = gap.remainder(DAY)
    hours = torch.minimum(around, DAY - around).double() / 3600.0
    return torch.exp(-(hours**2) / (2.0 * sigma**2))


def bucket_clock(
    values: Tensor, times: Tensor, query_time: int, *, sigma: float = 1.0, days: int = 30
) -> tuple[Tensor, Tensor]:
    """Pool one user's events as published: by hour of day, smoothed by a Gaussian over hours.

    Hour h's preference is the sum of the values of events within `days` before the query whose local hour is
    h; the answer is the sum over hours weighted by the Gaussian of the circular distance between the query's
    exact time of day and the middle of the hour.

    Args:
        values: (L, d) item vectors, or one-hot categories.
        times: (L,) int64 local seconds.
        query_time: local seconds; only events before it count.
        sigma: deviation in hours; the paper's is 1.
        days: how far back preferences are counted; the paper's is 30.

    Returns:
        The weighted sum (d,) and the sum of weights (), so that the caller normalizes.
    """
    past = (times <= query_time) & (times > query_time - days * DAY)
    hour = times[past].remainder(DAY) // 3600
    sums = values.new_zeros(24, values.shape[1]).index_add(0, hour, values[past])
    counts = values.new_zeros(24).index_add(0, hour, values.new_ones(len(hour)))
    middles = torch.arange(24, device=values.device) * 3600 + 1800
    weights = gaussian_kernel(query_time - middles, sigma).to(values.dtype)
    return weights @ sums, weights @ counts
