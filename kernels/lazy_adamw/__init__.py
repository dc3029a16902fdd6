"""Lazy (sparse) AdamW: a step on the rows of a table that a batch touched; the others cost nothing.

Read `reference` first, then `cpu` or `triton`. Legend: R rows of the table, U rows touched, d width.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recsys.kernels.lazy_adamw import reference
from recsys.kernels.lazy_adamw.checks import check_gradient, check_table
from recsys.kernels.shared.backends import BackendTable

__all__ = ["update_rows"]

Update = Callable[..., None]
"""A backend: arguments as of `reference.update_rows`."""


def _cpu() -> Update:
    from recsys.kernels.lazy_adamw import cpu

    return cpu.update_rows


def _triton() -> Update:
    from recsys.kernels.lazy_adamw import triton

    return triton.update_rows


BACKENDS = BackendTable[Update](
    "lazy_adamw", {"reference": lambda: reference.update_rows, "cpu": _cpu, "triton": _triton}
)


def update_rows(
    weight: Tensor,
    mean: Tensor,
    square: Tensor,
    ids: Tensor,
    gradient: Tensor,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    backend: str | None = None,
) -> None:
    """Take one lazy AdamW step on some rows, in place.

    With g the gradient of row i at step t, for the rows in `ids` and no others:

        w_i <- (1 - lr decay) w_i;  m_i <- b1 m_i + (1 - b1) g;  v_i <- b2 v_i + (1 - b2) g^2
        w_i <- w_i - lr / (1 - b1^t) m_i / (sqrt(v_i / (1 - b2^t)) + epsilon)

    A row that is not in `ids` keeps its weights and moments: its moments do not decay and it does not move on
    along them, and it is not decayed either. t counts the steps of the table, not those of the row. Where
    every row is in `ids`, this is AdamW.

    Args:
        weight: (R, d) contiguous floating.
        mean: (R, d), first moments, likewise.
        square: (R, d), second moments, likewise.
        ids: (U,) int64 in [0, R), distinct.
        gradient: (U, d).
        step: t, from 1.
        learning_rate: lr.
        betas: (b1, b2).
        epsilon: as in Adam.
        weight_decay: decoupled, per step in which the row is touched.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Raises:
        ArgumentError: shapes do not go together, or a tensor is not contiguous.

    Cost: O(U d).
    Source: lazy Adam as in TensorFlow's LazyAdam and torch's SparseAdam (Kingma and Ba 2015); decoupled decay
    of Loshchilov and Hutter 2019 on touched rows alone.
    """
    check_table(weight, mean, square)
    check_gradient(ids, gradient, weight.shape[1])
    beta1, beta2 = betas
    chosen = BACKENDS.choose(backend, weight)
    # Half-precision tables are left to the reference: the loop on the CPU works in place, in float32.
    if chosen == "cpu" and weight.dtype != torch.float32:
        chosen = "reference"
    update = BACKENDS.load(chosen)
    with torch.no_grad():
        update(
            weight,
            mean,
            square,
            ids,
            gradient.to(weight.dtype),
            step_size=learning_rate / (1 - beta1**step),
            beta1=beta1,
            beta2=beta2,
            root=1 / math.sqrt(1 - beta2**step),
            epsilon=epsilon,
            keep=1 - learning_rate * weight_decay,
        )
