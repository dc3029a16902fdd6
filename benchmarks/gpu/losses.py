"""The loss over a whole catalog, both ways, beside a tuned loop over chunks, Liger's and Apple's."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from recsys.benchmarks.gpu.comparisons import as_task
from recsys.benchmarks.gpu.loss_rivals import chunk_loop, rivals
from recsys.benchmarks.gpu.stages import Scale, Task
from recsys.benchmarks.kernels.case import Case, Work, round_trip
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.kernels.cross_entropy import linear_cross_entropy

__all__ = ["tasks"]

ROWS = 8_192
WIDTHS, ITEMS = (64, 128), (100_000, 1_000_000, 10_000)
CHUNKS = (256, 1_024, 4_096)
"""Rows of the loops' chunks; the loop's time is that of the best."""

_LOOP = "torch loop"
_MOST_LOGITS = 1 << 31
"""Of a chunk: with its float32 copies 24 GB."""


def tasks(scale: Scale) -> Iterator[Task]:
    """All widths and catalogs in the type that training has; a row without a rival says so."""
    rows = 64 if scale.dry else ROWS
    for width in WIDTHS:
        for items in (300,) if scale.dry else ITEMS:
            yield _task(rows, items, width, scale)


def _task(rows: int, items: int, width: int, scale: Scale) -> Task:
    dtype, device = scale.dtypes[0], scale.device
    hidden = draw(rows, width, seed=0, device=device, dtype=dtype)
    weight = (draw(items, width, seed=1, device=device, dtype=torch.float32) * 0.1).to(dtype)
    targets = torch.arange(rows, device=device) * 7_919 % items
    upstream = torch.ones((), device=device, dtype=dtype)

    def ours(hidden: Tensor, weight: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, weight, targets)

    sides: dict[str, Callable[[], Any]] = {"ours": round_trip(ours, [leaf(hidden), leaf(weight)], upstream)}
    for chunk in (16,) if scale.dry else CHUNKS:
        if chunk * items > _MOST_LOGITS:
            continue
        for compiled in (False,) if scale.dry else (False, True):
            name = f"{_LOOP}, {chunk:,} rows{', compiled' if compiled else ''}"
            sides[name] = partial(chunk_loop, hidden, weight, targets, chunk, compiled=compiled)
    if not scale.dry:
        sides |= rivals(hidden, weight, targets, upstream)
    pairs, size = rows * items, hidden.element_size()
    case = Case(
        "cross_entropy",
        f"{rows:,} rows, {items:,} items",
        width,
        str(dtype).removeprefix("torch."),
        "forward+backward",
        rows,
        sides,
        # The logits twice and a product for each gradient; exponentials once.
        work=Work(bytes=3.0 * (rows + items) * width * size, flops=8.0 * pairs * width, exps=float(pairs)),
        facts={"absent": [name for name in ("liger_kernel", "cut_cross_entropy") if find_spec(name) is None]},
    )
    return as_task(case, scale, partial(_distances, sides))


def _distances(sides: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """How far each rival's gradients lie from ours, relative to ours."""
    by_row, by_item = (x.double() for x in sides["ours"]())
    found = {}
    for name, side in sides.items():
        if name == "ours":
            continue
        try:
            theirs = [x.double() for x in side()]
        except Exception:  # `measure` said why
            continue
        found[name] = {
            "hidden": float((theirs[0] - by_row).norm() / by_row.norm()),
            "items": float((theirs[1] - by_item).norm() / by_item.norm()),
        }
    return {"apart": found}
