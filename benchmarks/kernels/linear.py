"""Linear layers by matrix tiles in bfloat16 against PyTorch's in float32 and under autocast."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.kernels.linear import linear, narrow_products
from recsys.kernels.linear.reference import linear as reference
from recsys.kernels.shared.vector.tiles import tiles_available

__all__ = ["cases"]

ROWS = 4_096
SHAPES = ((64, 192), (256, 1_024))
"""Inputs and outputs: a projection of queries, keys and values, and a feed-forward layer."""


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on a CPU with matrix tiles (AMX), none elsewhere: layers are PyTorch's there."""
    if device.type == "cpu" and tiles_available():
        for inputs, outputs in SHAPES:
            yield from _compare(min(ROWS, events), inputs, outputs, device)


def _compare(rows: int, inputs: int, outputs: int, device: torch.device) -> Iterator[Case]:
    x, weight, bias, upstream = (
        draw(*shape, seed=seed, device=device, dtype=torch.float32)
        for seed, shape in enumerate(((rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)))
    )

    def ours(*leaves: Tensor) -> Tensor:
        with narrow_products():
            return linear(*leaves)

    def autocast(*leaves: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.linear(*leaves).float()

    functions: dict[str, Callable[..., Tensor]] = {
        "ours": ours,
        "torch, float32": F.linear,
        "torch, bfloat16 by autocast": autocast,
        DEFINITION: reference,
    }
    sides = {name: (call, [leaf(t) for t in (x, weight, bias)], upstream) for name, call in functions.items()}
    products = {"forward": 1, "forward+backward": 3}
    yield from comparisons(
        sides,
        device,
        operation="linear",
        shape=f"{rows:,} x {inputs} to {outputs}",
        d_model=inputs,
        dtype=torch.bfloat16,
        events=rows,
        work=lambda direction: Work(
            bytes=float(products[direction] * (x.nbytes + weight.nbytes + upstream.nbytes)),
            flops=2.0 * products[direction] * rows * inputs * outputs,
        ),
    )
