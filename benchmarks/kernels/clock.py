"""The interest clock's sums: our choice of form against exact Gaussians of all pairs in PyTorch."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recsys.benchmarks.clock.rivals import gaussian_sums, kernels
from recsys.benchmarks.kernels.case import DEFINITION, Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.kernels.clock import clock_sums

__all__ = ["cases"]

WIDTH, EVENTS = 64, 16_000
LENGTHS = (50, 200)
"""All sequences of a batch are as long: PyTorch's side knows no others."""


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device, in float32."""
    if torch.float32 in dtypes:
        for length in LENGTHS:
            yield from _compare(max(1, min(events, EVENTS) // length), length, device)


def _compare(count: int, length: int, device: torch.device) -> Iterator[Case]:
    values = draw(count * length, WIDTH + 1, seed=0, device=device, dtype=torch.float32)
    upstream = draw(count * length, WIDTH + 1, seed=1, device=device, dtype=torch.float32)
    gaps = draw(count, length, seed=2, device=device, dtype=torch.float32).exp().mul(3600).long()
    times = gaps.cumsum(1) + 1_700_000_000
    asked = torch.cat((times[:, 1:], times[:, -1:] + 3600), dim=1)
    offsets = torch.arange(0, count * length + 1, length, dtype=torch.int32, device=device)
    mixed = kernels().to(device)
    mix, rate = torch.zeros(len(mixed), device=device), torch.tensor(math.log(2.0) / 30.0, device=device)

    def by(backend: str | None) -> Callable[..., Tensor]:
        def sums(values: Tensor, mix: Tensor, rate: Tensor) -> Tensor:
            return clock_sums(
                values,
                times.flatten(),
                asked.flatten(),
                offsets,
                coefficients=mix.softmax(0) @ mixed,
                rate=rate,
                max_length=length,
                backend=backend,
            )

        return sums

    def gaussian(values: Tensor, mix: Tensor, rate: Tensor) -> Tensor:
        together = values.view(count, length, -1)
        return gaussian_sums(together, times, asked, mix.softmax(0), rate).flatten(0, 1)

    leaves = [values, mix, rate]
    sides = {
        "ours": (by(None), [leaf(x) for x in leaves], upstream),
        "torch, exact Gaussians": (gaussian, [leaf(x) for x in leaves], upstream),
        DEFINITION: (by("reference"), [leaf(x) for x in leaves], upstream),
    }
    pairs = count * length * (length + 1) // 2
    passes = {"forward": 1, "backward": 2, "forward+backward": 3}
    yield from comparisons(
        sides,
        device,
        operation="clock",
        shape=f"{count:,} x {length}",
        d_model=WIDTH,
        dtype=torch.float32,
        events=count * length,
        # Exact Gaussians are another kernel: `benchmarks.clock.errors` says how far apart they are.
        alike=("ours", DEFINITION),
        work=lambda direction: Work(
            bytes=2.0 * passes[direction] * values.numel() * values.element_size(),
            flops=2.0 * passes[direction] * pairs * values.shape[1],
        ),
    )
