"""Jagged attention on the CPU: float32, one kernel for all lengths, no padding, no L x L tensor.

A block of up to PANEL queries meets all its keys at once; scores lie transposed, keys x queries, so that
softmax runs lane by lane without sums across a vector. The backward pass computes them again.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.attention import sweeps
from recsys.kernels.attention.dropout import keep_threshold
from recsys.kernels.threads import launch, threads_for
from recsys.kernels.vector import LANES

# Sequences longer than this are cut for the threads; backward then computes their scores twice.
WHOLE = 2048
CUT = 256
SHORT = 64


def jagged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    *,
    causal: bool,
    scale: float,
    dropout_p: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """Attend within each sequence; arguments as in `reference.jagged_attention`.

    Computes in float32 whatever the dtype; q, k and v may have any strides.
    """
    width = q.shape[2]
    pad = -width % LANES
    inputs = [x if x.dtype == torch.float32 else x.float() for x in (q, k, v)]
    if pad:
        inputs = [torch.nn.functional.pad(x, (0, pad)) for x in inputs]
    out: Tensor = _Attention.apply(*inputs, offsets, causal, scale, dropout_p, seed)  # type: ignore[no-untyped-call]
    if pad:
        out = out[:, :, :width]
    return out if q.dtype == torch.float32 else out.to(q.dtype)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        offsets: Tensor,
        causal: bool,
        scale: float,
        dropout_p: float,
        seed: int,
    ) -> Tensor:
        events, heads, _ = q.shape
        out = torch.empty(q.shape)
        largest = torch.empty(events, heads)
        inverse = torch.empty(events, heads)
        bounds = offsets.numpy()
        pieces, longest = plan(bounds, heads, backward=False)
        drop = _drop_words(dropout_p, seed)
        launch(
            sweeps.forward_worker,
            threads_for(len(pieces), _steps(bounds, heads, q.shape[2])),
            pieces,
            bounds,
            longest,
            *_flat(q),
            *_flat(k),
            *_flat(v),
            q.shape[2],
            heads,
            causal,
            np.float32(scale),
            drop,
            np.float32(1.0 / (1.0 - dropout_p)),
            out.view(-1).numpy(),
            largest.view(-1).numpy(),
            inverse.view(-1).numpy(),
        )
        ctx.save_for_backward(q, k, v, offsets, out, largest, inverse)
        ctx.options = causal, scale, dropout_p, drop
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, offsets, out, largest, inverse = ctx.saved_tensors
        causal, scale, dropout_p, drop = ctx.options
        heads = q.shape[1]
        grads = [torch.empty(q.shape) for _ in range(3)]
        bounds = offsets.numpy()
        pieces, longest = plan(bounds, heads, backward=True)
        launch(
            sweeps.backward_worker,
            threads_for(len(pieces), 3 * _steps(bounds, heads, q.shape[2])),
            pieces,
            bounds,
            longest,
            *_flat(q),
            *_flat(k),
            *_flat(v),
            *_flat(grad),
            q.shape[2],
            heads,
            causal,
            np.float32(scale),
            drop,
            np.float32(1.0 / (1.0 - dropout_p)),
            out.view(-1).numpy(),
            largest.view(-1).numpy(),
            inverse.view(-1).numpy(),
            *(x.view(-1).numpy() for x in grads),
        )
        return *grads, None, None, None, None, None


def plan(bounds: NDArray[np.int32], heads: int, *, backward: bool) -> tuple[NDArray[np.int64], int]:
    """Cut the batch into pieces of work, longest sequences first.

    Whether and where a sequence is cut depends on its own length alone, so its bits do too.

    Args:
        bounds: (B + 1,) offsets.
        heads: H.
        backward: whether the pieces are for the backward pass.

    Returns:
        (P, 6) int64 rows (sequence, head, first query, last query, first key, last key), where the backward
        pass computes the query gradient of a piece with all keys, the key and value gradients of a piece with
        all queries and both of a whole sequence; and the length of the longest sequence.
    """
    lengths = np.diff(bounds)
    # Short sequences balance themselves and stay in the order in which they lie in memory.
    order = np.argsort(np.where(lengths > SHORT, -lengths, 0), kind="stable")
    order = order[lengths[order] > 0]
    long = int(np.count_nonzero(lengths > WHOLE))
    rows = [
        (sequence, head, *cut)
        for sequence in order[:long].tolist()
        for head in range(heads)
        for cut in _cuts(int(lengths[sequence]), backward)
    ]
    whole = np.zeros((len(order) - long, heads, 6), dtype=np.int64)
    whole[:, :, 0] = order[long:, None]
    whole[:, :, 1] = np.arange(heads)
    whole[:, :, 3] = whole[:, :, 5] = lengths[order[long:], None]
    pieces = whole.reshape(-1, 6)
    if rows:
        pieces = np.concatenate([np.array(rows, dtype=np.int64), pieces])
    return pieces, int(lengths.max(initial=0))


def _cuts(length: int, backward: bool) -> list[tuple[int, int, int, int]]:
    starts = range(0, length, CUT)
    cuts = [(start, min(start + CUT, length), 0, length) for start in starts]
    if backward:
        cuts += [(0, length, start, min(start + CUT, length)) for start in starts]
    return cuts


def _drop_words(dropout_p: float, seed: int) -> NDArray[np.int64]:
    """Pack the mask's integers: low and high word of the seed, threshold (0: keep all)."""
    threshold = keep_threshold(dropout_p) if dropout_p > 0.0 else 0
    return np.array([seed & 0xFFFFFFFF, seed >> 32, threshold], dtype=np.int64)


def _flat(x: Tensor) -> tuple[NDArray[np.float32], int, int]:
    """See (N, H, Dh) as one run of memory with the strides of its first two dimensions."""
    if x.stride(2) != 1 or min(x.stride(0), x.stride(1)) < 0:
        x = x.contiguous()
    if x.numel() == 0:
        return np.zeros(0, dtype=np.float32), 0, 0
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    flat: NDArray[np.float32] = x.detach().as_strided((span,), (1,)).numpy()
    return flat, x.stride(0), x.stride(1)


def _steps(bounds: NDArray[np.int32], heads: int, width: int) -> int:
    """Estimate the forward pass in the elementary steps of `threads_for`; 400 per event were measured."""
    lengths = np.diff(bounds).astype(np.int64)
    return heads * int(400 * lengths.sum() + width * int((lengths * lengths).sum()) // 8)
