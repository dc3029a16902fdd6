"""The selective scan on a GPU: Triton kernels registered with PyTorch.

Inputs keep their types and row strides, so that halves of a projection are read in place; states and sums
are float32.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.scan.call import ScanCall
from recsys.kernels.scan.schedule import MOST_STATES, ScanSchedule
from recsys.kernels.scan.triton_launches import Inputs, WorkList, allocate_outputs, scan, scan_backward

__all__ = ["selective_scan"]


def selective_scan(call: ScanCall) -> tuple[Tensor, Tensor]:
    """Scan; the final state is empty unless asked for.

    Raises:
        ArgumentError: d_state is above `MOST_STATES`, or the schedule is of another batch or device.
    """
    schedule = _schedule(call)
    y, state, _ = forward(
        call.u,
        call.delta,
        call.A,
        call.B,
        call.C,
        call.D,
        call.z,
        call.delta_bias,
        call.initial_state,
        call.offsets,
        call.delta_softplus,
        schedule.tasks,
        schedule.bounds,
        schedule.chunks,
        schedule.chains,
        call.return_state,
        call.trained,
    )
    return y, state


def _schedule(call: ScanCall) -> ScanSchedule:
    """The batch's work list, made where none is given."""
    u, offsets = call.u, call.offsets
    if call.A.shape[1] > MOST_STATES:
        raise ArgumentError(
            f"selective_scan: d_state is {call.A.shape[1]}, backend 'triton' takes up to {MOST_STATES}: "
            "use backend='reference'"
        )
    schedule = call.schedule
    if schedule is None:
        schedule = ScanSchedule.from_offsets(offsets)
    wanted = (offsets.shape[0] - 1, u.shape[0])
    if (schedule.sequences, schedule.events) != wanted or schedule.tasks.device != u.device:
        raise ArgumentError(
            f"selective_scan: schedule is of {schedule.sequences} sequences and {schedule.events} events on "
            f"{schedule.tasks.device}, want {wanted[0]} and {wanted[1]} on {u.device}"
        )
    return schedule


@torch.library.custom_op("recsys::selective_scan_triton", mutates_args=(), device_types=("cuda", "cpu"))
def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    tasks: Tensor,
    bounds: Tensor,
    chunks: Tensor,
    chains: Tensor,
    return_state: bool,
    trained: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the final state if `return_state`, and the states that backward needs if `trained`."""
    x = Inputs.arrange(u, delta, A, B, C, D, z, delta_bias, initial_state, offsets, delta_softplus)
    y, final, kept = allocate_outputs(u, A, offsets, return_state, trained)
    scan(
        x,
        WorkList(tasks, bounds, chunks, chains),
        y,
        final if return_state else None,
        kept if trained else None,
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
    initial_state: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    tasks: Tensor,
    bounds: Tensor,
    chunks: Tensor,
    chains: Tensor,
    return_state: bool,
    trained: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return allocate_outputs(u, A, offsets, return_state, trained)


@torch.library.custom_op(
    "recsys::selective_scan_triton_backward", mutates_args=(), device_types=("cuda", "cpu")
)
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
    initial_state: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    tasks: Tensor,
    bounds: Tensor,
    chunks: Tensor,
    chains: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, delta, A, B, C, D, z, delta_bias and initial_state; empty where absent."""
    x = Inputs.arrange(u, delta, A, B, C, D, z, delta_bias, initial_state, offsets, delta_softplus)
    schedule = WorkList(tasks, bounds, chunks, chains)
    gradients = scan_backward(x, schedule, kept, dy, dfinal)
    wanted = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    return tuple(  # type: ignore[return-value]
        u.new_empty(0) if like is None or gradient is None else gradient.to(like.dtype)
        for gradient, like in zip(gradients, wanted, strict=True)
    )


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
    initial_state: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    tasks: Tensor,
    bounds: Tensor,
    chunks: Tensor,
    chains: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(  # type: ignore[return-value]
        u.new_empty(0) if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for x in (u, delta, A, B, C, D, z, delta_bias, initial_state)
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, softened, tasks, bounds, chunks, chains, with_state, _ = inputs
    ctx.save_for_backward(output[2], *tensors, tasks, bounds, chunks, chains)
    ctx.softened, ctx.with_state = softened, with_state
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    kept, *tensors, offsets, tasks, bounds, chunks, chains = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(tensors[0])
    gradients = backward(
        dy,
        dfinal if ctx.with_state else None,
        kept,
        *tensors,
        offsets,
        ctx.softened,
        tasks,
        bounds,
        chunks,
        chains,
    )
    found = [None if x is None else gradient for x, gradient in zip(tensors, gradients, strict=True)]
    return (*found, *(None,) * 8)


forward.register_autograd(_differentiate, setup_context=_save)
