"""The operations for GPUs, each one launch forward and one backward: arguments as in `reference`.

Arithmetic is float32 whatever the types. Masks are computed again in the backward pass.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.kernels.pointwise import reference
from recsys.kernels.pointwise.mask import draw_seed, keep_threshold
from recsys.kernels.pointwise.triton_activate import activate_backward_kernel, activate_kernel
from recsys.kernels.pointwise.triton_drop import drop_backward_kernel, drop_kernel
from recsys.kernels.pointwise.triton_rotate import PARTS, rotate_kernel
from recsys.kernels.shared.launching import architecture, choose_config, launch

__all__ = ["activate", "add_dropped", "dropout", "rotate_parts"]


def dropout(x: Tensor, dropout_p: float, generator: torch.Generator | None) -> Tensor:
    """Drop of x."""
    dropped: Tensor = drop_forward(None, x, None, *_dropping(x, dropout_p, generator))
    return dropped


def add_dropped(
    x: Tensor, y: Tensor, gate: Tensor | None, dropout_p: float, generator: torch.Generator | None
) -> Tensor:
    """Add what is left of y, gated, to x."""
    seed, dropout_p = _dropping(x, dropout_p, generator)
    if seed is None and gate is None:
        return x + y
    total: Tensor = drop_forward(x, y, gate, seed, dropout_p)
    return total


def activate(x: Tensor, kind: str, dropout_p: float, generator: torch.Generator | None) -> Tensor:
    """Activate rows and drop of the result."""
    activated: Tensor = activate_forward(x, kind == "swiglu", *_dropping(x, dropout_p, generator))
    return activated


def rotate_parts(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    """Take a projection's output apart into heads, rotating the first parts."""
    if not 0 < x.shape[1] <= PARTS:
        return reference.rotate_parts(x, cos, sin, turned)
    parts: list[Tensor] = rotate_forward(x, cos, sin, turned)
    return parts


@torch.library.custom_op("recsys::drop_triton", mutates_args=(), device_types=("cuda", "cpu"))
def drop_forward(
    x: Tensor | None, y: Tensor, gate: Tensor | None, seed: Tensor | None, dropout_p: float
) -> Tensor:
    """Compute the sum (N, D), of the type that holds all; without a seed nothing is dropped."""
    out = _sum_like(x, y, gate)
    inputs = (None if i is None else i.contiguous() for i in (x, y, gate))
    _over_rows(drop_kernel, out.shape, (*inputs, out, seed), _mask_numbers(dropout_p))
    return out


@drop_forward.register_fake
def _(x: Tensor | None, y: Tensor, gate: Tensor | None, seed: Tensor | None, dropout_p: float) -> Tensor:
    return _sum_like(x, y, gate)


@torch.library.custom_op("recsys::drop_triton_backward", mutates_args=(), device_types=("cuda", "cpu"))
def drop_backward(
    grad: Tensor,
    y: Tensor | None,
    gate: Tensor | None,
    seed: Tensor | None,
    dropout_p: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of y, of this type, and of the gate; y and gate are None together.

    The gradient of no gate is empty.
    """
    dy, dgate = _drop_gradients(grad, gate, dtype)
    inputs = (None if i is None else i.contiguous() for i in (grad, y, gate))
    tensors = (*inputs, dy, None if gate is None else dgate, seed)
    _over_rows(drop_backward_kernel, grad.shape, tensors, _mask_numbers(dropout_p))
    return dy, dgate


@drop_backward.register_fake
def _(
    grad: Tensor,
    y: Tensor | None,
    gate: Tensor | None,
    seed: Tensor | None,
    dropout_p: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    return _drop_gradients(grad, gate, dtype)


def _save_drop(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, gate, seed, ctx.dropout_p = inputs
    ctx.added, ctx.dtype = None if x is None else x.dtype, y.dtype
    ctx.save_for_backward(None if gate is None else y, gate, seed)
    ctx.set_materialize_grads(False)


def _differentiate_drop(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    y, gate, seed = ctx.saved_tensors
    dy, dgate = drop_backward(grad, y, gate, seed, ctx.dropout_p, ctx.dtype)
    return None if ctx.added is None else grad.to(ctx.added), dy, None if gate is None else dgate, None, None


drop_forward.register_autograd(_differentiate_drop, setup_context=_save_drop)


@torch.library.custom_op("recsys::activate_triton", mutates_args=(), device_types=("cuda", "cpu"))
def activate_forward(x: Tensor, swiglu: bool, seed: Tensor | None, dropout_p: float) -> Tensor:
    """Activate rows (N, F) by GELU, or (N, 2 F) to (N, F), and drop of the result."""
    out = _activated(x, swiglu)
    tensors = x.contiguous(), out, seed
    _over_rows(activate_kernel, out.shape, tensors, _mask_numbers(dropout_p), SWIGLU=swiglu)
    return out


@activate_forward.register_fake
def _(x: Tensor, swiglu: bool, seed: Tensor | None, dropout_p: float) -> Tensor:
    return _activated(x, swiglu)


@torch.library.custom_op("recsys::activate_triton_backward", mutates_args=(), device_types=("cuda", "cpu"))
def activate_backward(grad: Tensor, x: Tensor, swiglu: bool, seed: Tensor | None, dropout_p: float) -> Tensor:
    """Return the gradient of x."""
    dx = x.new_empty(x.shape)
    tensors = grad.contiguous(), x.contiguous(), dx, seed
    _over_rows(activate_backward_kernel, grad.shape, tensors, _mask_numbers(dropout_p), SWIGLU=swiglu)
    return dx


@activate_backward.register_fake
def _(grad: Tensor, x: Tensor, swiglu: bool, seed: Tensor | None, dropout_p: float) -> Tensor:
    return x.new_empty(x.shape)


def _save_activate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.swiglu, seed, ctx.dropout_p = inputs
    ctx.save_for_backward(x, seed)
    ctx.set_materialize_grads(False)


def _differentiate_activate(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 4
    x, seed = ctx.saved_tensors
    return activate_backward(grad, x, ctx.swiglu, seed, ctx.dropout_p), None, None, None


activate_forward.register_autograd(_differentiate_activate, setup_context=_save_activate)


@torch.library.custom_op("recsys::rotate_triton", mutates_args=(), device_types=("cuda", "cpu"))
def rotate_forward(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    """Take (N, P, H, E) apart into P tensors (N, H, E), rotating the first `turned`; cos, sin (N, E / 2)."""
    parts = _parts(x)
    _turn(x.contiguous(), parts, cos, sin, turned, False)
    return parts


@rotate_forward.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> list[Tensor]:
    return _parts(x)


@torch.library.custom_op("recsys::rotate_triton_backward", mutates_args=(), device_types=("cuda", "cpu"))
def rotate_backward(grads: list[Tensor], cos: Tensor, sin: Tensor, turned: int) -> Tensor:
    """Put gradients (N, H, E) of the parts together again, turned back."""
    dx = _whole(grads)
    _turn(dx, [x.contiguous() for x in grads], cos, sin, turned, True)
    return dx


@rotate_backward.register_fake
def _(grads: list[Tensor], cos: Tensor, sin: Tensor, turned: int) -> Tensor:
    return _whole(grads)


def _save_rotate(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    _, cos, sin, ctx.turned = inputs
    ctx.save_for_backward(cos, sin)


def _differentiate_rotate(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    return rotate_backward(grads, *ctx.saved_tensors, ctx.turned), None, None, None


rotate_forward.register_autograd(_differentiate_rotate, setup_context=_save_rotate)


def _dropping(x: Tensor, dropout_p: float, generator: torch.Generator | None) -> tuple[Tensor | None, float]:
    """The mask's seed on the device of x, for which nobody waits, and the probability; None drops nothing."""
    if generator is None or dropout_p == 0.0:
        return None, 0.0
    return draw_seed(generator, x.device).to(x.device, non_blocking=True), dropout_p


def _mask_numbers(dropout_p: float) -> tuple[int, float]:
    """The mask's threshold as the signed number of the same bits, and the factor on what is kept."""
    threshold = keep_threshold(dropout_p)
    return threshold - 2**32 if threshold >= 2**31 else threshold, 1.0 / (1.0 - dropout_p)


def _over_rows(
    kernel: Any,
    shape: torch.Size,
    tensors: tuple[Tensor | None, ...],
    numbers: tuple[int | float, ...],
    **constants: Any,
) -> None:
    """Launch a kernel over all tiles of a matrix."""
    rows, width = shape
    like = next(x for x in tensors if x is not None)
    config = choose_config("pointwise", "rows", architecture(like), width=width)
    slices = -(-width // config.blocks["BLOCK_D"])
    programs = -(-rows // config.blocks["BLOCK_N"]) * slices
    launch(kernel, programs, config, *tensors, rows, width, slices, *numbers, **constants)


def _sum_like(x: Tensor | None, y: Tensor, gate: Tensor | None) -> Tensor:
    dtype = y.dtype
    for other in (x, gate):
        dtype = dtype if other is None else torch.promote_types(dtype, other.dtype)
    return y.new_empty(y.shape, dtype=dtype)


def _drop_gradients(grad: Tensor, gate: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    dgate = grad.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return grad.new_empty(grad.shape, dtype=dtype), dgate


def _activated(x: Tensor, swiglu: bool) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // 2 if swiglu else x.shape[1])


def _parts(x: Tensor) -> list[Tensor]:
    events, count, heads, width = x.shape
    return [x.new_empty(events, heads, width) for _ in range(count)]


def _whole(parts: list[Tensor]) -> Tensor:
    events, heads, width = parts[0].shape
    return parts[0].new_empty(events, len(parts), heads, width)


def _turn(x: Tensor, parts: list[Tensor], cos: Tensor, sin: Tensor, turned: int, back: bool) -> None:
    """Move between the whole and its parts, all contiguous; `back` is from the parts."""
    events, count, heads, width = x.shape
    pairs = heads * width // 2
    config = choose_config("pointwise", "rows", architecture(x), width=pairs)
    slices = -(-pairs // config.blocks["BLOCK_D"])
    launch(
        rotate_kernel, -(-events // config.blocks["BLOCK_N"]) * slices, config,
        x, *parts, *[None] * (PARTS - count), cos.contiguous(), sin.contiguous(), events, width // 2, pairs,
        slices, COUNT=count, TURNED=turned, BACK=back,
    )  # fmt: skip
