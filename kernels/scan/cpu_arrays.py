"""The tensors that the scan's CPU operations take and make, in the order of the workers' arguments."""

from typing import Any

import torch
from torch import Tensor

from recsys.kernels.scan.cpu_states import KEEP
from recsys.kernels.shared.arrays import flat, rows
from recsys.kernels.shared.vector import LANES

__all__ = ["allocate_gradients", "allocate_outputs", "arrange_inputs"]


def allocate_outputs(
    u: Tensor, A: Tensor, offsets: Tensor, with_state: bool, trained: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Make y, the final states and the kept states; the last two are empty unless wanted."""
    (events, d_inner), d_state = u.shape, A.shape[1]
    vectors = -(-d_inner // LANES)
    final = (offsets.shape[0] - 1, d_inner, d_state) if with_state else (0, d_inner, d_state)
    kept = (events // KEEP if trained else 0, vectors, d_state, LANES)
    return u.new_empty(events, d_inner), u.new_empty(final), u.new_empty(kept)


def allocate_gradients(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Make the gradients of u, delta, A, B, C and of the optional inputs, empty where these are absent."""

    def like(x: Tensor | None) -> Tensor:
        return u.new_empty(0 if x is None else x.shape)

    optional = [like(x) for x in (D, z, delta_bias, initial_state)]
    return (like(u), like(u), like(A), like(B), like(B), *optional)  # type: ignore[return-value]


def arrange_inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    initial_state: Tensor | None,
    delta_softplus: bool,
) -> tuple[Any, ...]:
    """Arrange what both workers read in the order of their arguments."""
    return (
        offsets.to(torch.int32).numpy(),
        u.shape[1],
        A.shape[1],
        *rows(u),
        *rows(delta),
        flat(A),
        *rows(B),
        *rows(C),
        flat(D),
        *rows(z),
        flat(delta_bias),
        flat(initial_state),
        delta_softplus,
    )
