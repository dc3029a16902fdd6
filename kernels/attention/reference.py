"""Jagged softmax attention in plain PyTorch: the definition that every backend is tested against.

For a sequence with rows s..e of q, k, v and a head h:  out = dropout(softmax(scale * q k^T + bias + mask)) v,
where bias is what `bias.AttentionBias` defines.

Legend: N events, B sequences, H heads, Dh head size, L length of one sequence.
"""

from itertools import pairwise

import torch
from torch import Tensor

from recsys.kernels.attention.bias import AttentionBias, added_scores
from recsys.kernels.attention.call import AttentionCall
from recsys.kernels.attention.dropout import keep_mask


def jagged_attention(call: AttentionCall) -> Tensor:
    """Attend within each sequence, one sequence after another, in the dtype of the inputs.

    Returns:
        (N, H, Dh), dtype of q. Differentiable in q, k, v and the tables, which are cast to the dtype of q.
    """
    q, k, v, bias = call.q, call.k, call.v, call.bias
    outputs = []
    bounds = call.offsets.tolist()
    for sequence, (start, end) in enumerate(pairwise(bounds)):
        if start == end:
            continue
        q_s, k_s, v_s = (x[start:end].transpose(0, 1) for x in (q, k, v))  # (H, L, Dh)
        scores = (q_s @ k_s.transpose(1, 2)) * call.scale  # (H, L, L)
        if bias is not None:
            scores = scores + _bias(bias, start, end, call.causal, q.device).to(scores.dtype)
        if call.causal:
            future = torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        probabilities = scores.softmax(dim=-1)
        if call.seed is not None:
            keep = keep_mask(call.seed, sequence, q.shape[1], end - start, call.dropout_p, device=q.device)
            probabilities = probabilities * keep / (1.0 - call.dropout_p)
        outputs.append((probabilities @ v_s).transpose(0, 1))
    if outputs:
        return torch.cat(outputs)
    nothing = (q + k + v) * 0.0  # no events, and still gradients of everything
    for table in () if bias is None else (bias.time_table, bias.position_table):
        nothing = nothing if table is None else nothing + table.sum().to(q.dtype) * 0.0
    return nothing


def _bias(bias: AttentionBias, start: int, end: int, causal: bool, device: torch.device) -> Tensor:
    """Look up the (H, L, L) additive scores of one sequence."""
    index = torch.arange(end - start, device=device)
    times = None if bias.timestamps is None else bias.timestamps[start:end]
    return added_scores(
        bias.time_table,
        bias.position_table,
        gap=None if times is None else (times[:, None] - times).abs(),
        distance=index[:, None] - index,
        causal=causal,
    )


def attention_step(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    *,
    scale: float,
    added: Tensor | None = None,
) -> Tensor:
    """Attend from one new event per sequence to its cached keys and values.

    Args:
        q: (B, H, Dh).
        k_cache: (B, L, H, Dh); only the first `lengths[b]` rows of b are read.
        v_cache: (B, L, H, Dh), likewise.
        lengths: (B,) integers in [0, L].
        scale: factor on the scores.
        added: (B, H, L) added to the scaled scores; columns past a sequence's length are ignored.

    Returns:
        (B, H, Dh); zeros where the length is 0.
    """
    valid = torch.arange(k_cache.shape[1], device=q.device) < lengths[:, None]  # (B, L)
    # Rows past the length may hold anything, NaN included, so they are replaced and not multiplied by zero.
    k_valid = k_cache.masked_fill(~valid[:, :, None, None], 0.0)
    v_valid = v_cache.masked_fill(~valid[:, :, None, None], 0.0)
    scores = torch.einsum("bhd,blhd->bhl", q, k_valid) * scale
    if added is not None:
        scores = scores + added.to(scores.dtype)
    scores = scores.masked_fill(~valid[:, None, :], float("-inf"))
    largest = scores.amax(dim=-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
    weights = (scores - largest).exp()
    total = weights.sum(dim=-1, keepdim=True)
    weights = weights / torch.where(total == 0.0, torch.ones_like(total), total)
    return torch.einsum("bhl,blhd->bhd", weights, v_valid)
