"""How far the recurrence is from the exact Gaussian and from the published buckets, hour by hour.

One made user: 600 events over 60 days, around 8:00 and 19:00, none near 2:00 at night.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.encoders.clock import DEGREE, SIGMAS
from recsys.kernels.clock import clock_sums, cosine_coefficients, hours_to_degree
from recsys.kernels.clock.circle import DAY, evaluate_kernel
from recsys.kernels.clock.reference import bucket_clock, gaussian_kernel

EVENTS = 600
DAYS = 60
HOURS = {"many events (8:00)": 8.0, "some events (12:30)": 12.5, "none (2:00)": 2.0}
START = 1_700_006_400  # a midnight


def made_user(width: int = 64) -> tuple[Tensor, Tensor]:
    """Values (L, width + 1), float32, the last column ones, and local times (L,) int64."""
    draw = torch.Generator().manual_seed(0)
    center = torch.where(torch.rand(EVENTS, generator=draw) < 0.5, 8.0, 19.0)
    hour = (center + 1.2 * torch.randn(EVENTS, generator=draw)).clamp(5.0, 23.0)
    day = torch.randint(0, DAYS, (EVENTS,), generator=draw)
    times = (START + day * DAY + (hour * 3600).long()).sort().values
    values = torch.randn(EVENTS, width, generator=draw)
    return torch.cat((values, torch.ones(EVENTS, 1)), dim=1), times


def measure() -> list[dict[str, Any]]:
    """Errors of every deviation at every hour, asked the day after the last event, with a 30-day half-life.

    Returns:
        Records: `weight` is the exact sum of weights; `kernel` the greatest difference of the two kernels
        over the user's events, of a peak of 1; `sums` the recurrence against the exact Gaussian form, as a
        share of its norm; `pooled` the same of what the encoder gets, normalized with a prior weight of 1;
        `rounding` the recurrence (float32) against its own definition (float64); `buckets` the normalized
        published form (24 buckets, 30 days, no decay) against the exact Gaussian of the same events.
    """
    values, times = made_user()
    rate = 0.6931471805599453 / 30.0
    offsets = torch.tensor([0, EVENTS], dtype=torch.int32)
    last = EVENTS - 1
    found = []
    for sigma in SIGMAS:
        coefficients = cosine_coefficients(hours_to_degree(sigma), DEGREE + 1)
        for name, hour in HOURS.items():
            at = START + (DAYS + 1) * DAY + int(hour * 3600)
            asked = times.clone()
            asked[last] = at
            sums = clock_sums(
                values,
                times,
                asked,
                offsets,
                coefficients=coefficients.float(),
                rate=torch.tensor(rate),
                max_length=EVENTS,
                form="recurrent",
            )[last].double()
            decay = torch.exp(-rate * (at - times).double() / DAY)
            flat, cosine = gaussian_kernel(at - times, sigma), evaluate_kernel(at - times, coefficients)
            exact, own = (flat * decay) @ values.double(), (cosine * decay) @ values.double()
            recent = times > at - 30 * DAY
            buckets, count = bucket_clock(values.double(), times, at, sigma=sigma)
            gaussian = (flat * recent) @ values.double()
            found.append(
                {
                    "sigma_hours": sigma,
                    "degree": hours_to_degree(sigma),
                    "harmonics": min(DEGREE, hours_to_degree(sigma)),
                    "hour": name,
                    "weight": float(exact[-1]),
                    "kernel": float((cosine - flat).abs().max()),
                    "sums": _relative(sums, exact),
                    "pooled": _relative(_pooled(sums), _pooled(exact)),
                    "rounding": _relative(sums, own),
                    "buckets": _relative(_pooled(buckets), _pooled(gaussian)),
                    "bucket_weight": float(count),
                }
            )
    return found


def _pooled(sums: Tensor) -> Tensor:
    """What is left of the sums after a prior of weight 1, whose vector is zero, has taken its share."""
    return sums[:-1] / (sums[-1] + 1.0)


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))
