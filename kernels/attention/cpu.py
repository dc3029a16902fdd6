"""Jagged attention on the CPU: float32, one kernel for all lengths, no padding, no L x L tensor.

A block of up to PANEL queries meets all its keys at once; scores lie transposed, keys x queries, so that
softmax runs lane by lane without sums across a vector. The backward pass computes them again.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.attention.call import AttentionCall
from recsys.kernels.attention.cpu_backward import backward_worker
from recsys.kernels.attention.cpu_bias_tables import lay_out, sum_partials
from recsys.kernels.attention.cpu_forward import forward_worker
from recsys.kernels.attention.cpu_tasks import cut_batch, estimate_steps
from recsys.kernels.attention.dropout import keep_threshold
from recsys.kernels.shared.arguments import check_offsets_values
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES


def jagged_attention(call: AttentionCall) -> Tensor:
    """Attend within each sequence, in float32 whatever the dtype; q, k and v may have any strides."""
    q, bias = call.q, call.bias
    width = q.shape[2]
    pad = -width % LANES
    inputs = [x if x.dtype == torch.float32 else x.float() for x in (q, call.k, call.v)]
    if pad:
        inputs = [torch.nn.functional.pad(x, (0, pad)) for x in inputs]
    tables: tuple[Tensor | None, ...] = (None, None, None)
    if bias is not None:
        times, positions = (x if x is None else x.float() for x in (bias.time_table, bias.position_table))
        tables = times, bias.timestamps, positions
    seed = 0 if call.seed is None else int(call.seed)
    out: Tensor = forward(*inputs, call.offsets, call.causal, call.scale, call.dropout_p, seed, *tables)[0]
    if pad:
        out = out[:, :, :width]
    return out if q.dtype == torch.float32 else out.to(q.dtype)


@cpu_operator("recsys::jagged_attention_cpu")
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    causal: bool,
    scale: float,
    dropout_p: float,
    seed: int,
    time_table: Tensor | None = None,
    timestamps: Tensor | None = None,
    position_table: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output (N, H, Dh), and each softmax's largest score and inverse sum (N, H).

    float32; Dh is a multiple of LANES.
    """
    events, heads, width = q.shape
    check_offsets_values("jagged_attention", offsets, events)
    out, largest, inverse = _outputs(q)
    bounds = offsets.to(torch.int32).numpy()
    tasks, longest = cut_batch(bounds, heads, backward=False)
    tables = lay_out(time_table, timestamps, position_table, longest=longest, causal=causal)
    launch(
        forward_worker,
        threads_for(len(tasks), estimate_steps(bounds, heads, width)),
        tasks,
        bounds,
        longest,
        *_strided(q),
        *_strided(k),
        *_strided(v),
        width,
        heads,
        causal,
        np.float32(scale),
        *_drop_words(dropout_p, seed),
        tables,
        _flat(out),
        _flat(largest),
        _flat(inverse),
    )
    return out, largest, inverse


@forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    causal: bool,
    scale: float,
    dropout_p: float,
    seed: int,
    time_table: Tensor | None = None,
    timestamps: Tensor | None = None,
    position_table: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(q)


@cpu_operator("recsys::jagged_attention_cpu_backward")
def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    out: Tensor,
    largest: Tensor,
    inverse: Tensor,
    causal: bool,
    scale: float,
    dropout_p: float,
    seed: int,
    time_table: Tensor | None,
    timestamps: Tensor | None,
    position_table: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v and the two tables; empty ones for tables that are None."""
    heads, width = q.shape[1:]
    gradients = _gradients(q)
    bounds = offsets.to(torch.int32).numpy()
    tasks, longest = cut_batch(bounds, heads, backward=True)
    tables = lay_out(time_table, timestamps, position_table, longest=longest, causal=causal)
    partials = np.zeros((len(tasks), tables.n_entries if tables else 0), dtype=np.float32)
    launch(
        backward_worker,
        threads_for(len(tasks), 3 * estimate_steps(bounds, heads, width)),
        tasks,
        bounds,
        longest,
        *_strided(q),
        *_strided(k),
        *_strided(v),
        *_strided(grad),
        width,
        heads,
        causal,
        np.float32(scale),
        *_drop_words(dropout_p, seed),
        tables,
        _flat(out),
        _flat(largest),
        _flat(inverse),
        *(_flat(x) for x in gradients),
        partials.reshape(-1),
    )
    return *gradients, *sum_partials(partials, tasks, tables, time_table, position_table)


@backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    out: Tensor,
    largest: Tensor,
    inverse: Tensor,
    causal: bool,
    scale: float,
    dropout_p: float,
    seed: int,
    time_table: Tensor | None,
    timestamps: Tensor | None,
    position_table: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    times, positions = (
        q.new_empty(0 if table is None else table.shape) for table in (time_table, position_table)
    )
    return *_gradients(q), times, positions


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4], *output, *inputs[8:])
    ctx.options = inputs[4:8]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 11
    *saved, time_table, timestamps, position_table = ctx.saved_tensors
    tables = time_table, timestamps, position_table
    dq, dk, dv, d_times, d_positions = backward(grad, *saved, *ctx.options, *tables)
    return (
        *(dq, dk, dv, None, None, None, None, None),
        None if time_table is None else d_times,
        None,
        None if position_table is None else d_positions,
    )


forward.register_autograd(_differentiate, setup_context=_save)


def _outputs(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2]), q.new_empty(q.shape[:2])


def _gradients(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _drop_words(dropout_p: float, seed: int) -> tuple[NDArray[np.int64], np.float32]:
    """Pack the mask's integers (words of the seed, threshold; 0 keeps all) and the factor on kept weights."""
    threshold = keep_threshold(dropout_p) if dropout_p > 0.0 else 0
    words = np.array([seed & 0xFFFFFFFF, seed >> 32, threshold], dtype=np.int64)
    return words, np.float32(1.0 / (1.0 - dropout_p))


def _flat(x: Tensor) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = x.detach().view(-1).numpy()
    return flat


def _strided(x: Tensor) -> tuple[NDArray[np.float32], int, int]:
    """See (N, H, Dh) as one run of memory with the strides of its first two dimensions."""
    if x.stride(2) != 1:
        x = x.contiguous()
    if x.numel() == 0:
        return np.zeros(0, dtype=np.float32), 0, 0
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    flat: NDArray[np.float32] = x.detach().as_strided((span,), (1,)).numpy()
    return flat, x.stride(0), x.stride(1)
