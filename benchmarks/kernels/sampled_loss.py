"""Losses over sampled negatives against their PyTorch definitions."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.benchmarks.kernels.shapes import catalog
from recsys.kernels.sampled_loss import gbce_loss, sampled_softmax_loss
from recsys.kernels.sampling import draw_negatives, draw_shared, uniform_sampler

__all__ = ["cases"]

ROWS, WIDTH, ITEMS = 8_192, 64, 100_000
OWN, SHARED = 64, 2_048
"""Negatives of each row's own, and shared by all."""


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device; rows are `events` where these are fewer, on a CPU a quarter."""
    rows, items = min(ROWS, events), catalog(ITEMS, events)
    if device.type == "cpu":
        rows = -(-rows // 4)
    targets = torch.arange(rows, device=device) * 7_919 % items
    sampler = uniform_sampler(items)
    own = draw_negatives(sampler, targets, OWN, 0)
    shared = draw_shared(sampler, SHARED, 0, device=device)
    for dtype in dtypes:
        yield from _compare(f"gBCE, {OWN} of each row", gbce_loss, targets, own, items, dtype)
        yield from _compare(
            f"softmax, {SHARED:,} shared", sampled_softmax_loss, targets, shared, items, dtype
        )


def _compare(
    name: str,
    loss: Callable[..., Tensor],
    targets: Tensor,
    negatives: Tensor,
    items: int,
    dtype: torch.dtype,
) -> Iterator[Case]:
    device, rows = targets.device, len(targets)
    hidden = draw(rows, WIDTH, seed=0, device=device, dtype=dtype)
    weight = draw(items, WIDTH, seed=1, device=device, dtype=dtype) * 0.1
    upstream = torch.ones((), device=device, dtype=dtype)

    def by(backend: str | None) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda hidden, weight: loss(hidden, weight, targets, negatives, backend=backend)

    sides = {
        "ours": (by(None), [leaf(hidden), leaf(weight)], upstream),
        "torch": (by("reference"), [leaf(hidden), leaf(weight)], upstream),
    }
    pairs = rows * (negatives.shape[-1] + 1)
    gathered = pairs if negatives.dim() == 2 else rows + len(negatives)
    size = upstream.element_size()
    # Forward and row gradients read the gathered rows once; the table's gradient is written once.
    moved = {"forward": gathered + 2 * rows, "backward": rows + items}
    moved["forward+backward"] = sum(moved.values())
    yield from comparisons(
        sides,
        device,
        operation="sampled_loss",
        shape=f"{rows:,} rows, {items:,} items, {name}",
        d_model=WIDTH,
        dtype=dtype,
        events=rows,
        work=lambda direction: Work(
            bytes=moved[direction] * WIDTH * size, flops=4 * pairs * WIDTH, exps=pairs
        ),
    )
