"""The selective scan on the CPU: numba kernels registered with PyTorch.

All tensors are float32 here; rows may have any stride, so that halves of a projection need no copy.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.kernels.scan.call import ScanCall
from recsys.kernels.scan.cpu_arrays import allocate_gradients, allocate_outputs, arrange_inputs
from recsys.kernels.scan.cpu_backward import backward_scratch, backward_worker
from recsys.kernels.scan.cpu_forward import forward_scratch, forward_worker
from recsys.kernels.scan.cpu_states import (
    BLOCK_D,
)
from recsys.kernels.shared.arguments import check_offsets_values
from recsys.kernels.shared.arrays import add_up, flat
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector.channel_blocks import (
    group_sequences,
)

__all__ = ["selective_scan"]

# Events per group of sequences: forward only saves loading A again, backward also writes dA once per group.
FORWARD_GROUP = 256
BACKWARD_GROUP = 512


def selective_scan(call: ScanCall) -> tuple[Tensor, Tensor]:
    """Scan in float32; the final state is empty unless asked for."""
    x = call.widened()
    y, state, _ = forward(
        x.u,
        x.delta,
        x.A,
        x.B,
        x.C,
        x.D,
        x.z,
        x.delta_bias,
        x.offsets,
        x.delta_softplus,
        x.initial_state,
        x.return_state,
        x.trained,
    )
    return y.to(call.u.dtype), state


@cpu_operator("recsys::selective_scan_cpu")
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
    (events, d_inner), d_state = u.shape, A.shape[1]
    check_offsets_values("selective_scan", offsets, events)
    y, final, kept = allocate_outputs(u, A, offsets, return_state, trained)
    bounds, order = group_sequences(offsets.numpy(), FORWARD_GROUP)
    threads = threads_for(len(order) * -(-d_inner // BLOCK_D), events * d_inner * d_state)
    launch(
        forward_worker,
        threads,
        bounds,
        order,
        *arrange_inputs(u, delta, A, B, C, D, z, delta_bias, offsets, initial_state, delta_softplus),
        torch.empty(threads * forward_scratch(d_state)).numpy(),
        flat(y),
        flat(final),
        flat(kept),
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
    return allocate_outputs(u, A, offsets, return_state, trained)


@cpu_operator("recsys::selective_scan_cpu_backward")
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
    (events, d_inner), d_state = u.shape, A.shape[1]
    gradients = allocate_gradients(u, A, B, D, z, delta_bias, initial_state)
    du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial = gradients
    bounds, order = group_sequences(offsets.numpy(), BACKWARD_GROUP)
    groups, blocks = len(order), -(-d_inner // BLOCK_D)
    part_B, part_C = torch.empty(blocks, events, d_state), torch.empty(blocks, events, d_state)
    part_A, part_D = torch.empty(groups, d_inner, d_state), torch.empty(groups, d_inner)
    part_bias = torch.empty(groups, d_inner)
    threads = threads_for(groups * blocks, 2 * events * d_inner * d_state)
    launch(
        backward_worker,
        threads,
        bounds,
        order,
        *arrange_inputs(u, delta, A, B, C, D, z, delta_bias, offsets, initial_state, delta_softplus),
        torch.empty(threads * backward_scratch(d_state)).numpy(),
        flat(kept),
        flat(dy),
        flat(dfinal),
        *(flat(x) for x in (du, ddelta, dz, dinitial, part_A, part_B, part_C, part_D, part_bias)),
    )
    add_up(part_A, dA)
    add_up(part_B, dB)
    add_up(part_C, dC)
    if D is not None:
        add_up(part_D, dD)
    if delta_bias is not None:
        add_up(part_bias, dbias)
    return gradients


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
    return allocate_gradients(u, A, B, D, z, delta_bias, initial_state)


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
