"""Softmax attention over a batch of sequences packed without padding.

Read `reference` first, then `call` (what every backend takes), `bias` and `dropout`; `cpu` with `cpu_forward`
and `cpu_backward`; `schedule` (the GPU's work list) and `triton` with `triton_forward` (short and long
sequences), `triton_backward` (short ones), `triton_backward_queries` and `triton_backward_keys` (long ones).

Legend: N events, B sequences, H heads, Dh head size, L cache length.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.attention import reference
from recsys.kernels.attention.bias import AttentionBias, added_scores
from recsys.kernels.attention.call import AttentionCall
from recsys.kernels.attention.checks import MOST_HEAD_SIZE, check_events, check_lengths, check_step
from recsys.kernels.attention.dropout import draw_seed
from recsys.kernels.attention.schedule import AttentionSchedule
from recsys.kernels.shared.arguments import check_offsets
from recsys.kernels.shared.backends import BackendTable

__all__ = ["AttentionBias", "AttentionSchedule", "added_scores", "attention_step", "jagged_attention"]

Attend = Callable[[AttentionCall], Tensor]
"""A backend: (N, H, Dh) in the dtype of q."""


def _cpu() -> Attend:
    from recsys.kernels.attention import cpu

    return cpu.jagged_attention


def _triton() -> Attend:
    from recsys.kernels.attention import triton

    return triton.jagged_attention


BACKENDS = BackendTable[Attend](
    "attention", {"reference": lambda: reference.jagged_attention, "cpu": _cpu, "triton": _triton}
)


def jagged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    *,
    causal: bool,
    max_length: int,
    dropout_p: float = 0.0,
    generator: torch.Generator | None = None,
    scale: float | None = None,
    bias: AttentionBias | None = None,
    schedule: AttentionSchedule | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attend within each sequence of a jagged batch.

    For a sequence with rows s..e and each head:  out = dropout(softmax(scale * q k^T + bias)) v, where the
    softmax of event i runs over the sequence's events (over events up to i if `causal`).

    Args:
        q: (N, H, Dh) float32, float64, bfloat16 or float16. Queries.
        k: (N, H, Dh), dtype and device of q. Keys.
        v: (N, H, Dh), dtype and device of q. Values.
        offsets: (B + 1,) int32, non-decreasing, first 0, last N. Empty sequences are allowed.
        causal: whether an event sees only itself and earlier events of its sequence.
        max_length: an upper bound on the sequences' lengths, known without reading `offsets`.
        dropout_p: probability of dropping an attention weight, in [0, 1); kept weights are divided by
            1 - dropout_p. 0 in evaluation.
        generator: source of the dropout mask; None is the default generator of the device. A call with
            dropout_p > 0 draws exactly one `torch.randint(0, 2**63 - 1, ())` from it and the mask is a fixed
            function of that number and of (sequence, head, query, key): see `dropout.keep_mask`.
        scale: factor on the scores; None is 1 / sqrt(Dh).
        bias: tables of scores by time gap and by relative position, see `AttentionBias`; None adds nothing.
        schedule: the batch's work list, used by "triton" alone, best made once per batch from host lengths;
            None reads the offsets back, and the host waits for the device in every call.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        (N, H, Dh), dtype of q. Differentiable in q, k, v and the tables of `bias`.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.

    Cost: O(sum of squared lengths) time and O(N) memory beside the inputs ("cpu", "triton").
    Numerics: "cpu" computes in float32, "triton" in the dtype of q with float32 sums; a sequence's output has
    the same bits whatever else is in the batch. Heads above 128 entries take the reference on a GPU.
    Source: Vaswani et al. 2017 (arXiv:1706.03762), equation 1; online softmax of Milakov and Gimelshein 2018
    (arXiv:1805.02867); backward as in Dao et al. 2022 (arXiv:2205.14135), algorithm 4.
    """
    check_events(q, k, v)
    check_offsets("jagged_attention", offsets, q.device)
    if offsets.device.type == "cpu" and not torch.compiler.is_compiling():
        check_lengths(offsets, q.shape[0], max_length)
    if not 0.0 <= dropout_p < 1.0:
        raise ArgumentError(f"jagged_attention: dropout_p is {dropout_p}, want a probability in [0, 1)")
    if bias is not None:
        bias.check(q, causal)
    chosen = BACKENDS.choose(backend, q)
    if chosen == "triton" and backend is None and q.shape[2] > MOST_HEAD_SIZE:
        chosen = "reference"
    scale = 1.0 / math.sqrt(q.shape[2]) if scale is None else float(scale)
    seed = draw_seed(generator, q.device) if dropout_p > 0.0 else None
    attend = BACKENDS.load(chosen)
    return attend(AttentionCall(q, k, v, offsets, causal, scale, dropout_p, seed, bias, schedule))


def attention_step(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    *,
    scale: float | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """Attend from one new event of each sequence to its cached keys and values.

    The caller writes the new event's key and value into the caches first and counts it in `lengths`.

    Args:
        q: (B, H, Dh), any floating dtype.
        k_cache: (B, L, H, Dh), dtype of q. Keys; rows past a sequence's length are never used.
        v_cache: (B, L, H, Dh), dtype of q. Values, likewise.
        lengths: (B,) int32 or int64, valid cache rows of each sequence, in [0, L].
        scale: factor on the scores; None is 1 / sqrt(Dh).
        added: (B, H, L) floating, added to the scaled scores, from `added_scores` on the times and places of
            the cached events; None adds nothing. Columns past a sequence's length are ignored.

    Returns:
        (B, H, Dh), dtype of q; zeros where the length is 0.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.
    """
    check_step(q, k_cache, v_cache, lengths, added)
    scale = 1.0 / math.sqrt(q.shape[2]) if scale is None else float(scale)
    return reference.attention_step(q, k_cache, v_cache, lengths, scale=scale, added=added)
