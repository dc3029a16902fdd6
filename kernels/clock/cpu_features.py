"""The clock's features, compiled: PyTorch's remainders and cosines would cost more than the sums."""

import math

import numpy as np
import torch
from torch import Tensor

from recsys.kernels.clock.circle import DAY
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES, Array, Number, compiled, next_task

__all__ = ["padded_features", "padded_width"]

_ROWS = 512
_RADIANS = math.tau / DAY


def padded_width(degree: int) -> int:
    """Return 2M + 1 rounded up to whole vectors."""
    return -(-(2 * degree + 1) // LANES) * LANES


def padded_features(times: Tensor, degree: int) -> Tensor:
    """Return `circle.circle_features` of times (N,) on the CPU, float32, with zeros up to `padded_width`."""
    width = padded_width(degree)
    out = torch.empty(len(times), width)
    tasks = -(-len(times) // _ROWS)
    launch(
        _features_worker,
        threads_for(tasks, len(times) * (60 + 8 * degree)),
        times.contiguous().numpy(),
        degree,
        width,
        out.view(-1).numpy(),
    )
    return out


@compiled
def _features_worker(
    slot: Number, queue: Array, times: Array, degree: Number, width: Number, out: Array
) -> None:
    """Multiply (cos, sin) of the angle up in float64: 30 products lose nothing that float32 would show."""
    while True:
        task = next_task(queue)
        if task * _ROWS >= len(times):
            return
        for row in range(task * _ROWS, min(len(times), (task + 1) * _ROWS)):
            angle = np.float64(times[row] % DAY) * _RADIANS
            step_cos, step_sin = math.cos(angle), math.sin(angle)
            cos, sin = step_cos, step_sin
            at = row * width
            out[at] = np.float32(1.0)
            for m in range(degree):
                out[at + 1 + m] = np.float32(cos)
                out[at + 1 + degree + m] = np.float32(sin)
                cos, sin = cos * step_cos - sin * step_sin, sin * step_cos + cos * step_sin
            for rest in range(2 * degree + 1, width):
                out[at + rest] = np.float32(0.0)
