"""The elementwise work between an encoder's matrix products, each in one pass over memory.

Read `reference` first, then `mask` (which elements dropout keeps) and `cpu_dropout`, `cpu_activate` or
`cpu_rotate`, each with its forward and backward pass, or `triton_drop`, `triton_activate` or `triton_rotate`.

Dropout with residual and gate, activations with dropout, rotary positions while a projection's output is
taken apart into heads.

Legend: N rows (events), D and F columns, P parts, H heads, E width of a head.
"""

from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.pointwise import reference
from recsys.kernels.pointwise.checks import check_kind, check_parts, check_rows
from recsys.kernels.shared.arguments import check_shape
from recsys.kernels.shared.backends import BackendTable

__all__ = ["activate", "add_dropped", "dropout", "rotate_parts"]

Kind = Literal["gelu", "swiglu"]


def _cpu() -> ModuleType:
    from recsys.kernels.pointwise import cpu

    return cpu


def _triton() -> ModuleType:
    from recsys.kernels.pointwise import triton

    return triton


BACKENDS = BackendTable[ModuleType](
    "pointwise", {"reference": lambda: reference, "cpu": _cpu, "triton": _triton}
)


def dropout(
    x: Tensor, dropout_p: float, generator: torch.Generator | None, *, backend: str | None = None
) -> Tensor:
    """Zero elements at random and scale the others by 1 / (1 - p).

    Args:
        x: (N, D) floating.
        dropout_p: probability p of dropping an element, in [0, 1).
        generator: where the mask's seed is drawn, one integer a call; None drops nothing.
        backend: "reference", "cpu", "triton" or None to choose by device and dtype.

    Returns:
        (N, D) in the dtype of x; x itself where nothing is dropped. NaN and infinity stay, or become NaN
        where they are dropped.

    Raises:
        ArgumentError: an argument does not fit; the message names it.

    Cost: one pass over x; backward one over the gradient, in which the mask is computed again.
    Numerics: the mask is a function of (seed, row, column), the same for every dtype, backend and device.
    Source: Srivastava et al. 2014; the mask's hash is named in `mask`.
    """
    check_rows("dropout", x, dropout_p)
    if generator is None or dropout_p == 0.0:
        return x
    dropped: Tensor = _implementation("dropout", backend, x).dropout(x, dropout_p, generator)
    return dropped


def add_dropped(
    x: Tensor,
    y: Tensor,
    dropout_p: float = 0.0,
    generator: torch.Generator | None = None,
    *,
    gate: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Compute x + dropout(y), a residual, or x + sigmoid(gate) * dropout(y), a gated one.

    Args:
        x: (N, D) floating.
        y: (N, D).
        dropout_p: probability of dropping an element of y, in [0, 1).
        generator: as in `dropout`; None drops nothing.
        gate: (N, D) before the sigmoid, or None.
        backend: "reference", "cpu", "triton" or None to choose by device and dtype.

    Returns:
        (N, D). Differentiable in x, y and gate.

    Raises:
        ArgumentError: an argument does not fit; the message names it.

    Cost and numerics: as of `dropout`, one pass over all inputs each way.
    """
    name = "add_dropped"
    check_rows(name, x, dropout_p)
    for label, other in (("y", y), ("gate", gate)):
        check_shape(name, label, other, "(N, D)", tuple(x.shape), f"x {tuple(x.shape)}")
    total: Tensor = _implementation(name, backend, x, y, gate).add_dropped(x, y, gate, dropout_p, generator)
    return total


def activate(
    x: Tensor,
    kind: Kind,
    dropout_p: float = 0.0,
    generator: torch.Generator | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Compute dropout(gelu(x)), or dropout(value * silu(gate)) of rows that hold value, then gate.

    Args:
        x: (N, F) floating for "gelu", with the exact normal distribution; (N, 2 F) for "swiglu".
        kind: "gelu" or "swiglu".
        dropout_p: probability of dropping an element of the result, in [0, 1).
        generator: as in `dropout`; None drops nothing.
        backend: "reference", "cpu", "triton" or None to choose by device and dtype.

    Returns:
        (N, F) in the dtype of x.

    Raises:
        ArgumentError: an argument does not fit; the message names it.

    Cost and numerics: as of `dropout`; nothing but x is kept for the backward pass.
    Source: Hendrycks and Gimpel 2016 (arXiv:1606.08415); Shazeer 2020 (arXiv:2002.05202).
    """
    check_rows("activate", x, dropout_p)
    check_kind(x, kind)
    # Without dropout there is nothing to fuse, and torch's GELU is as fast.
    if kind == "gelu" and backend is None and (generator is None or dropout_p == 0.0):
        backend = "reference"
    activated: Tensor = _implementation("activate", backend, x).activate(x, kind, dropout_p, generator)
    return activated


def rotate_parts(
    x: Tensor, cos: Tensor, sin: Tensor, turned: int, *, backend: str | None = None
) -> list[Tensor]:
    """Take a projection's output apart into its parts and rotate the first of them (RoFormer).

    The halves a and b of a head become a cos - b sin and a sin + b cos.

    Args:
        x: (N, P, H, E) floating, E even: of queries, keys and values P = 3.
        cos: (N, E / 2) cosines of each row's angles.
        sin: (N, E / 2) sines, likewise.
        turned: how many parts are rotated, 0 to P: of queries, keys and values 2.
        backend: "reference", "cpu", "triton" or None to choose by device and dtype.

    Returns:
        P tensors (N, H, E) in the dtype of x. Differentiable in x alone.

    Raises:
        ArgumentError: an argument does not fit; the message names it.

    Cost: one pass over x; backward one over the gradients, which lie together afterwards.
    Source: Su et al. 2021 (arXiv:2104.09864), in the layout of halves.
    """
    name = "rotate_parts"
    check_parts(x, cos, sin, turned)
    parts: list[Tensor] = _implementation(name, backend, x, cos, sin).rotate_parts(x, cos, sin, turned)
    return parts


def _implementation(name: str, backend: str | None, x: Tensor, *others: Tensor | None) -> ModuleType:
    """The CPU's kernel takes float32 throughout, the GPU's no float64; the rest goes to the reference.

    The number of rows has no say, or a row's bits would depend on its batch.
    """
    dtypes = {other.dtype for other in (x, *others) if other is not None}
    if backend == "cpu" and dtypes != {torch.float32}:
        raise ArgumentError(f"{name}: backend 'cpu' takes float32 throughout: cast, or use backend=None")
    chosen = BACKENDS.choose(backend, x)
    fits = dtypes == {torch.float32} if chosen == "cpu" else torch.float64 not in dtypes
    return BACKENDS.load(chosen if fits else "reference")
