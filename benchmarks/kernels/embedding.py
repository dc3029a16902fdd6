"""Gradients of looked-up item vectors, ids as unequal as an item's popularity."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.benchmarks.kernels.shapes import catalog
from recsys.kernels.embedding import item_vectors

__all__ = ["cases"]

WIDTH = 64
ITEMS = {"cuda": 1_000_000, "cpu": 100_000}


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device."""
    items = catalog(ITEMS[device.type], events)
    generator = torch.Generator().manual_seed(0)
    # Ids whose logarithms are uniform: density 1 / id, Zipf's law.
    draws = torch.rand(events, generator=generator, dtype=torch.float64)
    ids = (items**draws).long().clamp(max=items - 1).to(device)
    for dtype in dtypes:
        table = draw(items, WIDTH, seed=1, device=device, dtype=dtype)
        upstream = draw(events, WIDTH, seed=2, device=device, dtype=dtype)
        calls: dict[str, Callable[[Tensor], Tensor]] = {
            "ours": lambda table: item_vectors(table, ids),
            "torch": lambda table: F.embedding(ids, table),
            DEFINITION: lambda table: item_vectors(table, ids, backend="reference"),
        }
        sides = {name: (call, [leaf(table)], upstream) for name, call in calls.items()}
        yield from comparisons(
            sides,
            device,
            operation="embedding",
            shape=f"{events:,} events, {items:,} items",
            d_model=WIDTH,
            dtype=dtype,
            events=events,
            work=partial(_work, events, items, upstream.element_size()),
        )


def _work(events: int, items: int, size: int, direction: str) -> Work:
    rows = {"forward": 2 * events, "backward": events + items, "forward+backward": 3 * events + items}
    return Work(bytes=rows[direction] * WIDTH * size)
