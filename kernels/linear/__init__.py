"""Linear layers whose products are made by the matrix tiles of a CPU, in float32 storage: mixed precision.

Read `reference` first, then `cpu` and `cpu_products`, which serve the forward and the backward pass alike.

Legend: N rows, I inputs, O outputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from recsys.kernels.linear.reference import linear as reference

__all__ = ["Linear", "linear", "narrow_products"]

_narrow: ContextVar[bool] = ContextVar("narrow_products", default=False)

_MULTIPLE = 32
"""Widths that whole blocks of matrix tiles fill."""


@contextmanager
def narrow_products() -> Iterator[None]:
    """Let linear layers called inside a `with` block multiply in bfloat16; the caller has seen to the tiles.

    Holds in this thread; the backward pass of a layer follows its forward pass. Layers with float32 tensors
    on the CPU and widths that are multiples of 32 take part.

    Raises:
        ArgumentError: the processor has no matrix tiles.
    """
    from recsys.kernels.linear.cpu import require_tiles

    require_tiles()
    token = _narrow.set(True)
    try:
        yield
    finally:
        _narrow.reset(token)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X W^T + b.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,) or None.

    Returns:
        (..., O), dtype of x. Inside `narrow_products` both factors of every product, forward and backward,
        are rounded to bfloat16 and summed in float32, in an order that the shapes set; elsewhere this is
        `torch.nn.functional.linear`.

    Why not oneDNN, which has the same products: it compiles anew for every N, and packed batches differ in N.
    """
    # torch.compile cannot follow a context variable.
    if not torch.compiler.is_compiling() and _narrow.get() and _fits(x, weight, bias):
        from recsys.kernels.linear import cpu

        product = cpu.narrow_linear(x.reshape(-1, x.shape[-1]), weight, bias)
        return product.view(*x.shape[:-1], weight.shape[0])
    return reference(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear`, same parameters and start, by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return linear(input, self.weight, self.bias)


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    tensors = [t for t in (x, weight, bias) if t is not None]
    return (
        all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and weight.shape[0] % _MULTIPLE == 0
        and weight.shape[1] % _MULTIPLE == 0
        and x.numel() > 0
    )
