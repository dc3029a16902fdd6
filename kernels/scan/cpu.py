"""The selective scan on the CPU: numba kernels registered with PyTorch.

All tensors are float32 here; rows may have any stride, so that halves of a projection need no copy.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.arguments import check_offsets_values
from recsys.kernels.scan.backward import backward_scratch, backward_worker
from recsys.kernels.scan.blocks import BLOCK, EVERY, group_sequences
from recsys.kernels.scan.forward import forward_scratch, forward_worker
from recsys.kernels.threads import launch, threads_for
from recsys.kernels.vector import LANES

__all__ = ["selective_scan"]

# Events per group of sequences: forward only saves loading A again, backward also writes dA once per group.
FORWARD_GROUP = 256
BACKWARD_GROUP = 512


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    initial_state: Tensor | None,
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    """Scan; arguments and results as in `reference.selective_scan`, the state empty unless asked for."""
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    trained = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    y, state, _ = forward(
        u, delta, A, B, C, D, z, delta_bias, offsets, delta_softplus, initial_state, return_state, trained
    )
    return y, state


@torch.library.custom_op("recsys::selective_scan_cpu", mutates_args=(), device_types="cpu")
def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    initial_state: Tensor | None,
    return_state: bool,
    trained: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the final state if `return_state`, and the states that backward needs if `trained`."""
    (events, channels), states = u.shape, A.shape[1]
    check_offsets_values("selective_scan", offsets, events)
    y, final, kept = _outputs(u, A, offsets, return_state, trained)
    bounds, order = group_sequences(offsets.numpy(), FORWARD_GROUP)
    threads = threads_for(len(order) * -(-channels // BLOCK), events * channels * states)
    launch(
        forward_worker,
        threads,
        bounds,
        order,
        *_inputs(u, delta, A, B, C, D, z, delta_bias, offsets, initial_state, delta_softplus),
        _scratch(threads * forward_scratch(states)),
        _flat(y),
        _flat(final),
        _flat(kept),
    )
    return y, final, kept


@forward.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    initial_state: Tensor | None,
    return_state: bool,
    trained: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(u, A, offsets, return_state, trained)


@torch.library.custom_op("recsys::selective_scan_cpu_backward", mutates_args=(), device_types="cpu")
def backward(
    dy: Tensor,
    dfinal: Tensor | None,
    kept: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, delta, A, B, C, D, z, delta_bias and initial_state; empty where absent."""
    (events, channels), states = u.shape, A.shape[1]
    du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial = _gradients(u, A, B, D, z, delta_bias, initial_state)
    bounds, order = group_sequences(offsets.numpy(), BACKWARD_GROUP)
    groups, blocks = len(order), -(-channels // BLOCK)
    part_B, part_C = torch.empty(blocks, events, states), torch.empty(blocks, events, states)
    part_A, part_D = torch.empty(groups, channels, states), torch.empty(groups, channels)
    part_bias = torch.empty(groups, channels)
    threads = threads_for(groups * blocks, 2 * events * channels * states)
    launch(
        backward_worker,
        threads,
        bounds,
        order,
        *_inputs(u, delta, A, B, C, D, z, delta_bias, offsets, initial_state, delta_softplus),
        _scratch(threads * backward_scratch(states)),
        _flat(kept),
        _flat(dy.contiguous()),
        _flat(None if dfinal is None else dfinal.contiguous()),
        *(_flat(x) for x in (du, ddelta, dz, dinitial, part_A, part_B, part_C, part_D, part_bias)),
    )
    _add_up(part_A, dA)
    _add_up(part_B, dB)
    _add_up(part_C, dC)
    if D is not None:
        _add_up(part_D, dD)
    if delta_bias is not None:
        _add_up(part_bias, dbias)
    return du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial


@backward.register_fake
def _(
    dy: Tensor,
    dfinal: Tensor | None,
    kept: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _gradients(u, A, B, D, z, delta_bias, initial_state)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    u, delta, A, B, C, D, z, delta_bias, offsets, softened, initial_state, with_state, _ = inputs
    ctx.save_for_backward(output[2], u, delta, A, B, C, D, z, delta_bias, offsets, initial_state)
    ctx.softened, ctx.with_state = softened, with_state
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    kept, u, delta, A, B, C, D, z, delta_bias, offsets, initial_state = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(u)
    du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial = backward(
        dy,
        dfinal if ctx.with_state else None,
        kept,
        u,
        delta,
        A,
        B,
        C,
        D,
        z,
        delta_bias,
        offsets,
        ctx.softened,
        initial_state,
    )
    return (
        du,
        ddelta,
        dA,
        dB,
        dC,
        None if D is None else dD,
        None if z is None else dz,
        None if delta_bias is None else dbias,
        None,
        None,
        None if initial_state is None else dinitial,
        None,
        None,
    )


forward.register_autograd(_differentiate, setup_context=_save)


def _outputs(
    u: Tensor, A: Tensor, offsets: Tensor, with_state: bool, trained: bool
) -> tuple[Tensor, Tensor, Tensor]:
    (events, channels), states = u.shape, A.shape[1]
    vectors = -(-channels // LANES)
    final = (offsets.shape[0] - 1, channels, states) if with_state else (0, channels, states)
    kept = (events // EVERY if trained else 0, vectors, states, LANES)
    return u.new_empty(events, channels), u.new_empty(final), u.new_empty(kept)


def _gradients(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(x: Tensor | None) -> Tensor:
        return u.new_empty(0 if x is None else x.shape)

    optional = [like(x) for x in (D, z, delta_bias, initial_state)]
    return (like(u), like(u), like(A), like(B), like(B), *optional)  # type: ignore[return-value]


def _inputs(
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
        *_rows(u),
        *_rows(delta),
        _flat(A.contiguous()),
        *_rows(B),
        *_rows(C),
        _flat(None if D is None else D.contiguous()),
        *_rows(z),
        _flat(None if delta_bias is None else delta_bias.contiguous()),
        _flat(None if initial_state is None else initial_state.contiguous()),
        delta_softplus,
    )


def _rows(x: Tensor | None) -> tuple[NDArray[np.float32], int]:
    """See a matrix as 1-D with a row stride; copied if its rows are not contiguous or overlap."""
    if x is None or x.numel() == 0:
        return np.empty(0, np.float32), 0
    if x.stride(1) != 1 or x.stride(0) < x.shape[1]:
        x = x.contiguous()
    row = x.stride(0)
    return x.detach().as_strided(((x.shape[0] - 1) * row + x.shape[1],), (1,)).numpy(), row


def _flat(x: Tensor | None) -> NDArray[np.float32]:
    return np.empty(0, np.float32) if x is None else x.detach().view(-1).numpy()


def _scratch(count: int) -> NDArray[np.float32]:
    return torch.empty(count).numpy()


def _add_up(parts: Tensor, total: Tensor) -> None:
    """Add the parts in order, one after another: the same bits whatever the number of threads."""
    total.zero_()
    for part in parts:
        total += part
