"""A step on the rows of an item table that a batch touched, against PyTorch's sparse and dense optimizers."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work
from recsys.benchmarks.kernels.padding import draw
from recsys.benchmarks.kernels.shapes import catalog
from recsys.kernels.lazy_adamw import update_rows

__all__ = ["cases"]

WIDTH, ITEMS, TOUCHED = 64, 100_000, 4_096
RATE, BETAS = 1e-3, (0.9, 0.98)


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """One comparison on one device, in float32; the step is in place, so that it has no gradient."""
    if torch.float32 not in dtypes:
        return
    items, touched = catalog(ITEMS, events), min(TOUCHED, events)
    ids = torch.randperm(items, generator=torch.Generator().manual_seed(0))[:touched].sort().values.to(device)
    gradient = draw(touched, WIDTH, seed=0, device=device, dtype=torch.float32)
    sides: dict[str, Callable[[], Tensor]] = {
        "ours": _ours(items, ids, gradient, None),
        "torch SparseAdam": _torch(items, ids, gradient, sparse=True),
        "torch AdamW of the whole table": _torch(items, ids, gradient, sparse=False),
        DEFINITION: _ours(items, ids, gradient, "reference"),
    }
    yield Case(
        "lazy_adamw",
        f"{touched:,} of {items:,} rows",
        WIDTH,
        "float32",
        "forward",
        touched,
        sides,
        # The table, its two moments read and written, and the gradient read.
        work=Work(bytes=7.0 * touched * WIDTH * gradient.element_size()),
        repeatable=False,
    )


def _ours(items: int, ids: Tensor, gradient: Tensor, backend: str | None) -> Callable[[], Tensor]:
    weight = draw(items, WIDTH, seed=1, device=ids.device, dtype=torch.float32)
    moments = torch.zeros_like(weight), torch.zeros_like(weight)
    step = partial(update_rows, weight, *moments, ids, gradient, learning_rate=RATE, betas=BETAS)

    def run() -> Tensor:
        step(step=1, backend=backend)
        return weight

    return run


def _torch(items: int, ids: Tensor, gradient: Tensor, *, sparse: bool) -> Callable[[], Tensor]:
    weight = draw(items, WIDTH, seed=1, device=ids.device, dtype=torch.float32).requires_grad_()
    optimizer: torch.optim.Optimizer
    if sparse:
        optimizer = torch.optim.SparseAdam([weight], lr=RATE, betas=BETAS)
    else:
        optimizer = torch.optim.AdamW([weight], lr=RATE, betas=BETAS, weight_decay=0.0)
    rows = torch.sparse_coo_tensor(
        ids[None], gradient, weight.shape, is_coalesced=True, check_invariants=False
    )
    weight.grad = rows if sparse else rows.to_dense()

    def run() -> Tensor:
        optimizer.step()  # type: ignore[no-untyped-call]
        return weight.detach()

    return run
