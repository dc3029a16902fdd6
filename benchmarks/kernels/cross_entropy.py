"""The loss over a whole catalog against torch's product and softmax, and against the same in chunks."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.benchmarks.kernels.shapes import catalog
from recsys.kernels.cross_entropy import linear_cross_entropy

__all__ = ["cases"]

WIDTH = 64
SHAPES = {"cuda": ((8_192, 12_101), (8_192, 100_000)), "cpu": ((8_192, 3_706), (2_048, 50_000))}
"""Rows and items: on a CPU those at which torch's own chunked loss is compared, too."""
CHUNK = {"cuda": 1_024, "cpu": 512}
"""Rows of a chunk: their logits fit a cache or nearly so."""


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device; rows are `events` where these are fewer."""
    for rows, items in SHAPES[device.type]:
        for dtype in dtypes:
            yield from _compare(min(rows, events), catalog(items, events), dtype, device)


def _compare(rows: int, items: int, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    hidden = draw(rows, WIDTH, seed=0, device=device, dtype=dtype)
    weight = draw(items, WIDTH, seed=1, device=device, dtype=dtype) * 0.1
    targets = torch.arange(rows, device=device) * 7_919 % items
    upstream = torch.ones((), device=device, dtype=dtype)
    chunk = CHUNK[device.type]

    def ours(hidden: Tensor, weight: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, weight, targets)

    def definition(hidden: Tensor, weight: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, weight, targets, backend="reference")

    def whole(hidden: Tensor, weight: Tensor) -> Tensor:
        return F.cross_entropy((hidden @ weight.T).float(), targets).to(dtype)

    def chunked(hidden: Tensor, weight: Tensor) -> Tensor:
        parts = zip(hidden.split(chunk), targets.split(chunk), strict=True)
        losses = [F.cross_entropy((h @ weight.T).float(), t, reduction="sum") for h, t in parts]
        return (torch.stack(losses).sum() / rows).to(dtype)

    sides = {
        "ours": (ours, [leaf(hidden), leaf(weight)], upstream),
        "torch, all logits": (whole, [leaf(hidden), leaf(weight)], upstream),
        "torch, chunks of rows": (chunked, [leaf(hidden), leaf(weight)], upstream),
        DEFINITION: (definition, [leaf(hidden), leaf(weight)], upstream),
    }
    pairs = rows * items
    # Forward: the logits. Backward: the logits again, and a product for each of two gradients.
    products = {"forward": 1, "backward": 3, "forward+backward": 3}
    yield from comparisons(
        sides,
        device,
        operation="cross_entropy",
        shape=f"{rows:,} rows, {items:,} items",
        d_model=WIDTH,
        dtype=dtype,
        events=rows,
        work=lambda direction: Work(
            bytes=(rows + items) * WIDTH * upstream.element_size() * (1 if direction == "forward" else 2),
            flops=2 * products[direction] * pairs * WIDTH,
            exps=pairs,
        ),
    )
