"""Jagged attention on a GPU: Triton kernels registered with PyTorch, in the dtype of the inputs.

q, k, v and the gradient are read where they lie, whatever the distance between rows and heads; sums, softmax
and the bias tables are float32.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.attention import (
    triton_backward,
    triton_backward_keys,
    triton_backward_queries,
    triton_forward,
)
from recsys.kernels.attention.call import AttentionCall
from recsys.kernels.attention.checks import MOST_HEAD_SIZE
from recsys.kernels.attention.dropout import keep_threshold
from recsys.kernels.attention.schedule import CLASSES, TASK_ROWS, read_schedule
from recsys.kernels.attention.triton_table_gradients import TableGradients
from recsys.kernels.shared.launching import Config, architecture, choose_config, launch

__all__ = ["jagged_attention"]

_LOG2_E = 1.4426950408889634


def jagged_attention(call: AttentionCall) -> Tensor:
    """Attend within each sequence; without a schedule the offsets are read back, which waits for the device.

    Raises:
        ArgumentError: the head size is above 128, or the schedule lies on another device.
    """
    q, bias, seed = call.q, call.bias, call.seed
    if q.shape[2] > MOST_HEAD_SIZE:
        raise ArgumentError(
            f"jagged_attention: q has head size {q.shape[2]}, backend 'triton' takes up to {MOST_HEAD_SIZE}: "
            "use backend='reference'"
        )
    offsets = call.offsets.to(torch.int32).contiguous()
    if call.schedule is None:
        tasks, counts = read_schedule(offsets, q.shape[0])
    else:
        tasks, counts = call.schedule.tasks, call.schedule.counts
    if tasks.device != q.device:
        raise ArgumentError(
            f"jagged_attention: schedule is on {tasks.device} and q on {q.device}, move it with .to"
        )
    if seed is not None:
        seed = seed.to(q.device, non_blocking=True)
    tables = () if bias is None else (bias.time_table, bias.position_table)
    time_table, position_table = (x if x is None else x.float() for x in tables or (None, None))
    times = None if bias is None else bias.timestamps
    out: Tensor = forward(
        q,
        call.k,
        call.v,
        offsets,
        tasks,
        counts,
        seed,
        time_table,
        times,
        position_table,
        call.causal,
        call.scale,
        call.dropout_p,
    )[0]
    return out


@torch.library.custom_op("recsys::jagged_attention_triton", mutates_args=(), device_types=("cuda", "cpu"))
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    tasks: Tensor,
    counts: Tensor,
    seed: Tensor | None,
    time_table: Tensor | None,
    times: Tensor | None,
    position_table: Tensor | None,
    causal: bool,
    scale: float,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """Return the output (N, H, Dh), and of each softmax the base-2 logarithm of its sum (N, H), float32."""
    out, log_sums = _outputs(q)
    q, k, v = (_rows(x) for x in (q, k, v))
    heads = q.shape[1]
    numbers = (heads, scale * _LOG2_E, seed, *_dropping(dropout_p), *_bias(time_table, times, position_table))
    biased = time_table is not None or position_table is not None
    long, *short = counts.tolist()
    # Sequences of the class of 64 are long ones of one block here: their softmax has no second part.
    config, constants = _choose("forward_long", q, causal, biased)
    launch(
        triton_forward.forward_long, (long + short[0]) * _parts(config, "BLOCK_M") * heads, config,
        q, k, v, out, log_sums, offsets, tasks, *_strides(q, k, v), *numbers,
        TASK_ROWS=TASK_ROWS, **constants,
    )  # fmt: skip
    first = long + short[0]
    for length, count in zip(CLASSES[1:], short[1:], strict=True):
        if count == 0:
            continue
        config, constants = _choose("forward_short", q, causal, biased, length)
        launch(
            triton_forward.forward_short, -(-count // config.blocks["GROUP"]) * heads, config,
            q, k, v, out, log_sums, offsets, tasks, first, first + count, *_strides(q, k, v), *numbers,
            BLOCK_L=length, **constants,
        )  # fmt: skip
        first += count
    return out, log_sums


@forward.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _outputs(q)


@torch.library.custom_op(
    "recsys::jagged_attention_triton_backward", mutates_args=(), device_types=("cuda", "cpu")
)
def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    tasks: Tensor,
    counts: Tensor,
    seed: Tensor | None,
    time_table: Tensor | None,
    times: Tensor | None,
    position_table: Tensor | None,
    out: Tensor,
    log_sums: Tensor,
    causal: bool,
    scale: float,
    dropout_p: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, and float32 ones of the tables (empty where there is none)."""
    dq, dk, dv, _, _ = _gradients(q, time_table, position_table)
    grad, q, k, v = (_rows(x) for x in (grad, q, k, v))
    heads = q.shape[1]
    strides = _strides(grad, q, k, v)
    biased = time_table is not None or position_table is not None
    tables = (time_table, times, position_table)
    numbers = (heads, scale, scale * _LOG2_E, seed, *_dropping(dropout_p), *_bias(*tables))
    sums = TableGradients(q, time_table, position_table)
    means = torch.empty_like(log_sums)
    long, *short = counts.tolist()
    if not _fits_whole(q):
        long, short[0] = long + short[0], 0
    config, constants = _choose("backward_queries", q, causal, biased)
    for first, last, parts in sums.chunks(0, long, 1, _parts(config, "BLOCK_M")):
        launch(
            triton_backward_queries.backward_queries, (last - first) * _parts(config, "BLOCK_M") * heads,
            config, grad, q, k, v, out, log_sums, means, dq, *parts, offsets, tasks, first, *strides,
            *numbers, TASK_ROWS=TASK_ROWS, **constants,
        )  # fmt: skip
    config, constants = _choose("backward_keys", q, causal, biased)
    launch(
        triton_backward_keys.backward_keys, long * _parts(config, "BLOCK_N") * heads, config,
        grad, q, k, v, log_sums, means, dk, dv, offsets, tasks, *strides, *numbers,
        TASK_ROWS=TASK_ROWS, **constants,
    )  # fmt: skip
    start = long
    for length, count in zip(CLASSES, short, strict=True):
        if count == 0:
            continue
        config, constants = _choose("backward_short", q, causal, biased, length)
        group = config.blocks["GROUP"]
        for first, last, parts in sums.chunks(start, start + count, group):
            launch(
                triton_backward.backward_short, -(-(last - first) // group) * heads, config,
                grad, q, k, v, log_sums, dq, dk, dv, *parts, offsets, tasks, first, last, *strides, *numbers,
                BLOCK_L=length, **constants,
            )  # fmt: skip
        start += count
    time_grad, position_grad = sums.totals()
    return dq, dk, dv, time_grad, position_grad


@backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    tasks: Tensor,
    counts: Tensor,
    seed: Tensor | None,
    time_table: Tensor | None,
    times: Tensor | None,
    position_table: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _gradients(q, time_table, position_table)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:10], *output)
    ctx.options = inputs[10:]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 13
    saved = ctx.saved_tensors
    dq, dk, dv, time_grad, position_grad = backward(grad, *saved, *ctx.options)
    time_slot = None if saved[7] is None else time_grad
    position_slot = None if saved[9] is None else position_grad
    return dq, dk, dv, None, None, None, None, time_slot, None, position_slot, None, None, None


forward.register_autograd(_differentiate, setup_context=_save)


def _outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.float32)


def _gradients(
    q: Tensor, time_table: Tensor | None, position_table: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tables = (
        q.new_empty((0,) if x is None else x.shape, dtype=torch.float32) for x in (time_table, position_table)
    )
    time_grad, position_grad = tables
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape), time_grad, position_grad


def _rows(x: Tensor) -> Tensor:
    """Take x with the entries of a head side by side; a copy only where they are not."""
    return x if x.stride(2) == 1 else x.contiguous()


def _strides(*tensors: Tensor) -> Sequence[int]:
    return [x.stride(axis) for x in tensors for axis in (0, 1)]


def _dropping(dropout_p: float) -> tuple[int, float]:
    """Return the mask's threshold as the signed number of the same bits, and the factor on kept weights."""
    threshold = keep_threshold(dropout_p)
    return threshold - 2**32 if threshold >= 2**31 else threshold, 1.0 / (1.0 - dropout_p)


def _bias(
    time_table: Tensor | None, times: Tensor | None, position_table: Tensor | None
) -> tuple[Tensor | None, Tensor | None, int, Tensor | None, int]:
    buckets = 0 if time_table is None else time_table.shape[1]
    entries = 0 if position_table is None else position_table.shape[1]
    contiguous = (None if x is None else x.contiguous() for x in (time_table, times, position_table))
    time_table, times, position_table = contiguous
    return time_table, times, buckets, position_table, entries


def _fits_whole(q: Tensor) -> bool:
    """Whether one program holds the gradients of 64 events: products of float32 unroll into registers."""
    return q.dtype != torch.float32 or q.shape[2] <= 32


def _parts(config: Config, owned: str) -> int:
    """Return how many programs share a task of a long sequence, each with a block of this name."""
    return TASK_ROWS // config.blocks[owned]


def _choose(
    kernel: str, q: Tensor, causal: bool, biased: bool, length: int = TASK_ROWS
) -> tuple[Config, dict[str, Any]]:
    """Return the launch configuration, and the constants that the model gives."""
    head = q.shape[2]
    padded = max(16, 1 << (head - 1).bit_length())
    sizes: dict[str, int | str] = {
        "dtype": str(q.dtype).removeprefix("torch."),
        "head_size": padded,
        "length": length,
    }
    config = choose_config("attention", kernel, architecture(q), bias=int(biased), **sizes)
    return config, {"HEAD_DIM": head, "BLOCK_D": padded, "CAUSAL": causal}
