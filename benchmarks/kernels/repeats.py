"""The softmax's correction for items that the window holds: our kernel against its PyTorch definition."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.benchmarks.kernels.shapes import BEAUTY, ML_1M, Batch
from recsys.kernels.repeats import RepeatLayout, repeat_correction

__all__ = ["cases"]

EVENTS, D_MODEL, ITEMS, BUCKETS = 4_096, 64, 3_000, 8
"""A training step's events, and the model's sizes."""


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons with next-item rows behind every event."""
    for shape in (ML_1M, BEAUTY):
        batch = Batch.make(shape, device, min(events, EVENTS))
        rng = np.random.default_rng(0)
        items, targets = rng.integers(0, ITEMS, (2, batch.events))
        sequence = np.repeat(np.arange(len(batch.lengths)), batch.lengths)
        place = np.arange(batch.events) - np.repeat(np.cumsum(batch.lengths) - batch.lengths, batch.lengths)
        layout = RepeatLayout.of(
            items, batch.lengths, np.ones(batch.events, dtype=bool), sequence, place + 1, targets
        ).to(device)
        for dtype in dtypes:
            yield from _compare(batch, layout, dtype)


def _compare(batch: Batch, layout: RepeatLayout, dtype: torch.dtype) -> Iterator[Case]:
    n, device = batch.events, batch.offsets.device
    hidden = draw(n, D_MODEL, seed=0, device=device, dtype=dtype)
    table = draw(ITEMS, D_MODEL, seed=1, device=device, dtype=dtype) * 0.2
    totals = torch.logsumexp(hidden @ table.T, 1)
    bias = draw(BUCKETS, seed=2, device=device, dtype=dtype)
    upstream = draw(n, seed=3, device=device, dtype=dtype)
    inputs = (hidden, table[layout.items], totals, bias)

    def by(backend: str | None) -> Callable[..., Tensor]:
        return lambda hidden, rows, totals, bias: repeat_correction(
            hidden, rows, totals, bias, layout, sees_later=False, n_items=ITEMS, backend=backend
        )

    sides = {
        "ours": (by(None), [leaf(x) for x in inputs], upstream),
        "torch, padded": (by("reference"), [leaf(x) for x in inputs], upstream),
    }
    pairs = batch.pairs(causal=True)
    passes = {"forward": 2, "forward+backward": 6}
    yield from comparisons(
        sides,
        device,
        operation="repeats",
        shape=batch.title,
        d_model=D_MODEL,
        dtype=dtype,
        events=n,
        work=lambda direction: Work(
            bytes=passes[direction] * n * D_MODEL * upstream.element_size(),
            flops=passes[direction] * pairs * D_MODEL,
            exps=pairs,
        ),
    )
