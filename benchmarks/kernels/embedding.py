"""Gradients of looked-up item vectors, ids as unequal as an item's popularity, on a GPU."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.kernels.case import Case, Work, both_ways
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.kernels.embedding import item_vectors

__all__ = ["cases"]

WIDTH, ITEMS = 64, 1_000_000


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on a GPU, none on a CPU."""
    if device.type == "cpu":
        return
    generator = torch.Generator().manual_seed(0)
    # Ids whose logarithms are uniform: density 1 / id, Zipf's law.
    draws = torch.rand(events, generator=generator, dtype=torch.float64)
    ids = (ITEMS**draws).long().clamp(max=ITEMS - 1).to(device)
    for dtype in dtypes:
        table = draw(ITEMS, WIDTH, seed=1, device=device, dtype=dtype)
        upstream = draw(events, WIDTH, seed=2, device=device, dtype=dtype)
        calls: dict[str, Callable[[Tensor], Tensor]] = {
            "ours": lambda table: item_vectors(table, ids),
            "torch": lambda table: F.embedding(ids, table),
        }
        sides = {name: (call, [leaf(table)], upstream) for name, call in calls.items()}
        for direction, timed in both_ways(sides, device).items():
            rows = 2 * events if direction == "forward" else events + ITEMS
            yield Case(
                "embedding",
                f"{events:,} events, {ITEMS:,} items",
                WIDTH,
                str(dtype).removeprefix("torch."),
                direction,
                events,
                timed,
                upstreams=dict.fromkeys(sides, upstream) if direction == "forward" else {},
                work=Work(bytes=rows * WIDTH * upstream.element_size()),
            )
