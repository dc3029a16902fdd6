"""Draws of negatives that no target is among, against PyTorch's generator, which looks at no target."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work
from recsys.benchmarks.kernels.shapes import catalog
from recsys.kernels.sampling import NegativeSampler, draw_negatives, popularity_sampler, uniform_sampler

__all__ = ["cases"]

ROWS, ITEMS, NEGATIVES = 4_096, 100_000, 64


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device, uniform and by popularity; ids have no dtype to vary."""
    del dtypes
    rows, items = min(ROWS, events), catalog(ITEMS, events)
    targets = torch.arange(rows, device=device) * 7_919 % items
    counts = items // torch.arange(1, items + 1)  # Zipf's law
    samplers: dict[str, tuple[NegativeSampler, Tensor | None]] = {
        "uniform": (uniform_sampler(items), None),
        "popularity": (popularity_sampler(counts, 0.75), counts.double() ** 0.75),
    }
    for name, (sampler, weights) in samplers.items():
        ours = partial(draw_negatives, sampler.to(device), targets, NEGATIVES, 0)
        yield Case(
            "sampling",
            f"{NEGATIVES} for {rows:,} rows, {items:,} items, {name}",
            1,
            "int64",
            "forward",
            rows,
            {
                "ours": ours,
                "torch, any item": _torch(rows, items, weights, device),
                DEFINITION: partial(ours, backend="reference"),
            },
            work=Work(bytes=8.0 * rows * (NEGATIVES + 1)),
        )


def _torch(rows: int, items: int, weights: Tensor | None, device: torch.device) -> Callable[[], Tensor]:
    if weights is None:
        return lambda: torch.randint(items, (rows, NEGATIVES), device=device)
    weights = weights.to(device)
    return lambda: torch.multinomial(weights, rows * NEGATIVES, replacement=True).view(rows, NEGATIVES)
