"""Vectors of items as sums of their tags' rows, tags as unequal as words are."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.benchmarks.kernels.shapes import catalog
from recsys.kernels.bags import bag_vectors, transpose

__all__ = ["cases"]

WIDTH, TAGS, MEAN_TAGS = 64, 1000, 5
ITEMS = {"cuda": 1_000_000, "cpu": 50_000}


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device."""
    items = catalog(ITEMS[device.type], events)
    draws = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 2 * MEAN_TAGS + 1, (items,), generator=draws)
    offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    entries = int(offsets[-1])
    # Numbers whose logarithms are uniform: density 1 / number, Zipf's law.
    rows = (TAGS ** torch.rand(entries, generator=draws, dtype=torch.float64)).long().clamp(max=TAGS - 1)
    weights = torch.rand(entries, generator=draws)
    offsets, rows, weights = offsets.to(device), rows.int().to(device), weights.to(device)
    transposed = transpose(offsets, rows, weights, TAGS)
    for dtype in dtypes:
        table = draw(TAGS, WIDTH, seed=1, device=device, dtype=dtype)
        upstream = draw(items, WIDTH, seed=2, device=device, dtype=dtype)
        factors = weights.to(dtype)
        calls: dict[str, Callable[[Tensor], Tensor]] = {
            "ours": partial(bag_vectors, offsets=offsets, rows=rows, weights=weights, transposed=transposed),
            "torch": partial(_torch_bags, offsets=offsets.int(), rows=rows, weights=factors),
            DEFINITION: partial(
                bag_vectors, offsets=offsets, rows=rows, weights=weights, backend="reference"
            ),
        }
        yield from comparisons(
            {name: (call, [leaf(table)], upstream) for name, call in calls.items()},
            device,
            operation="bags",
            shape=f"{items:,} items, {entries:,} of {TAGS:,} tags",
            d_model=WIDTH,
            dtype=dtype,
            events=items,
            work=partial(_work, items, entries, upstream.element_size()),
        )


def _torch_bags(table: Tensor, *, offsets: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(
        rows, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _work(items: int, entries: int, size: int, direction: str) -> Work:
    """Places and weights are read, items' rows written or read; the table stays in a cache."""
    once = items * WIDTH * size + 8 * entries
    return Work(bytes=(2 if "+" in direction else 1) * once)
