"""From vectors that somebody else's model made of items to vectors of the encoder's width.

Legend: V items, p their vectors' width, D the encoder's.
"""

import warnings
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recsys.encoders.items import BLOCK, DEVIATION
from recsys.kernels.linear import Linear, linear

__all__ = ["Projection"]

_SAMPLE = 65_536
"""Trained items of whose vectors the principal directions are taken, at most."""


class Projection(nn.Module):
    """P x + b for each item that has a vector, and for "mlp" two layers more beside it; zero for the others.

    P starts from the principal directions of the trained items' vectors, turned at random so that no
    coordinate has more of them than others, and scaled so that vectors begin as wide as id rows; b takes
    their mean away, which embedding models have and which tells no item from another.

    Args:
        vectors: (V, p) float16; mapped files stay where they are.
        trained: (V,) bool.
        width: D.
        kind: "linear" or "mlp".
        generator: of the turn and of the further layers.
    """

    vectors: Tensor
    known: Tensor

    def __init__(
        self,
        vectors: NDArray[np.float16],
        trained: NDArray[np.bool_],
        width: int,
        kind: Literal["linear", "mlp"],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.register_buffer("vectors", torch.from_numpy(vectors), persistent=False)
        known = _known(vectors)
        self._all_known = bool(known.all())
        self.register_buffer("known", torch.from_numpy(known), persistent=False)
        weight, bias = _principal(vectors, trained, width, generator)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.up = self.down = None
        if kind == "mlp":
            self.up, self.down = Linear(width, 2 * width), Linear(2 * width, width)
            with torch.no_grad():
                self.up.weight.normal_(0.0, width**-0.5, generator=generator)
                self.down.weight.normal_(0.0, 0.5 * DEVIATION * (2 * width) ** -0.5, generator=generator)
                self.up.bias.zero_()
                self.down.bias.zero_()

    def forward(self, ids: Tensor | None) -> Tensor:
        """(n, D) of items (n,); of all V for None."""
        made = self._of(self.vectors, ids)
        if self._all_known:
            return made
        known = self.known if ids is None else self.known[ids]
        return made * known[:, None].to(made.dtype)

    def of_later(self, vectors: Tensor) -> Tensor:
        """(m, D) of vectors (m, p) of items that the catalog lacks.

        A product of a few rows may be summed in another order than one of many. So these are put into as many
        rows as the catalog's are: an item gets the bits that it would have as one of the catalog.
        """
        rows = min(len(self.vectors), BLOCK)
        parts = [self.weight.new_zeros(0, self.weight.shape[0])]
        for first in range(0, len(vectors), rows):
            own = vectors[first : first + rows]
            block = own.new_zeros(rows, own.shape[1])
            block[: len(own)] = own
            parts.append(self._of(block, None)[: len(own)])
        made = torch.cat(parts)
        return made * vectors.any(dim=1)[:, None].to(made.dtype)

    def _of(self, vectors: Tensor, ids: Tensor | None) -> Tensor:
        made: Tensor = _Project.apply(self.weight, self.bias, vectors, ids)  # type: ignore[no-untyped-call]
        if self.up is not None and self.down is not None:
            made = made + self.down(F.gelu(self.up(made / DEVIATION)))
        return made


class _Project(torch.autograd.Function):
    """X P^T + b, of which nothing of X's size in another type is kept: blocks are widened one at a time."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, vectors: Tensor, ids: Tensor | None) -> Tensor:
        ctx.save_for_backward(vectors, ids)
        ctx.dtype = weight.dtype
        out = weight.new_empty(len(vectors) if ids is None else len(ids), weight.shape[0])
        for first in range(0, len(out), BLOCK):
            out[first : first + BLOCK] = linear(_block(vectors, ids, first, weight.dtype), weight, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        vectors, ids = ctx.saved_tensors
        gradient = upstream.new_zeros(upstream.shape[1], vectors.shape[1], dtype=ctx.dtype)
        upstream = upstream.to(ctx.dtype)
        for first in range(0, len(upstream), BLOCK):
            rows = upstream[first : first + BLOCK]
            gradient.addmm_(rows.T, _block(vectors, ids, first, ctx.dtype))
        return gradient, upstream.sum(0), None, None


def _block(vectors: Tensor, ids: Tensor | None, first: int, dtype: torch.dtype) -> Tensor:
    block = slice(first, first + BLOCK)
    return (vectors[block] if ids is None else vectors[ids[block]]).to(dtype)


def _known(vectors: NDArray[np.float16]) -> NDArray[np.bool_]:
    """(V,) items that have a vector: one of zeros is none."""
    blocks = [vectors[first : first + BLOCK].any(axis=1) for first in range(0, len(vectors), BLOCK)]
    return np.concatenate(blocks)


def _principal(
    vectors: NDArray[np.float16], trained: NDArray[np.bool_], width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """P (D, p) and b (D,) at the start."""
    known = np.flatnonzero(trained)
    sample = known[np.linspace(0, len(known) - 1, min(len(known), _SAMPLE)).astype(np.int64)]
    x = torch.from_numpy(np.asarray(vectors[sample], dtype=np.float64))
    x = x[x.abs().sum(1) > 0]
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    p = vectors.shape[1]
    if not len(x):
        return torch.zeros(width, p), torch.zeros(width)
    mean = x.mean(0)
    variances, directions = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    kept = min(width, p)
    variances, directions = variances.flip(0)[:kept], directions.flip(1)[:, :kept]
    spread = float(variances.clamp(min=0).sum() / width) ** 0.5
    weight = turn[:, :kept] @ directions.T * (DEVIATION / max(spread, 1e-12))
    return weight.float(), -(weight @ mean).float()
