"""Jagged attention against SDPA on padded and on bucketed arrays; on a GPU also varlen flash and Flex."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.kernels import flex
from recsys.benchmarks.kernels.case import DEFINITION, Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf, pad, unpad
from recsys.benchmarks.kernels.shapes import BEAUTY, LONG, ML_1M, Batch
from recsys.kernels.attention import jagged_attention

__all__ = ["cases"]

HEADS = {64: 2, 256: 4}

PADDED, WRAPPED, BUCKETS = "SDPA, already padded", "SDPA, padding and unpadding", "SDPA, already in buckets"
FLASH, NESTED = "FlashAttention varlen through torch", "SDPA, nested tensors"


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device: causal as in SASRec, at d 64 also bidirectional as in BERT4Rec."""
    for shape in (ML_1M, BEAUTY) if device.type == "cpu" else (ML_1M, BEAUTY, LONG):
        batch = Batch.make(shape, device, events)
        for d_model in (64, 256):
            for dtype in dtypes:
                yield from _compare(batch, d_model, dtype, device, causal=True)
                if d_model == 64:
                    yield from _compare(batch, d_model, dtype, device, causal=False)

    if device.type == "cuda":  # last: FlexAttention takes long to compile, for each shape anew
        for shape in (ML_1M, BEAUTY):
            for d_model in (64, 256):
                yield from _with_bias(Batch.make(shape, device, events), d_model, torch.bfloat16, device)


def _inputs(
    batch: Batch, d_model: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[Tensor], Tensor]:
    heads = HEADS[d_model]
    shape = (batch.events, heads, d_model // heads)
    q, k, v, upstream = (draw(*shape, seed=seed, device=device, dtype=dtype) for seed in range(4))
    return [q, k, v], upstream


def _compare(
    batch: Batch, d_model: int, dtype: torch.dtype, device: torch.device, *, causal: bool
) -> Iterator[Case]:
    inputs, upstream = _inputs(batch, d_model, dtype, device)
    options, places = _schedule(batch), batch.places()

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return jagged_attention(q, k, v, batch.offsets, causal=causal, max_length=batch.longest, **options)

    def definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return jagged_attention(
            q, k, v, batch.offsets, causal=causal, max_length=batch.longest, backend="reference"
        )

    def wrapped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return unpad(padded_attention(pad(q, batch), pad(k, batch), pad(v, batch), mask, causal), places)

    mask = _key_mask(batch)
    groups = [(rows, group, _key_mask(group)) for rows, group in batch.buckets()]

    def bucketed(*leaves: Tensor) -> Tensor:
        made = [
            padded_attention(leaves[3 * i], leaves[3 * i + 1], leaves[3 * i + 2], mask, causal).flatten(0, 1)
            for i, (_, _, mask) in enumerate(groups)
        ]
        return torch.cat(made)

    def padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return padded_attention(q, k, v, mask, causal)

    in_buckets = [leaf(pad(x[rows], group)) for rows, group, _ in groups for x in inputs]
    upstream_buckets = torch.cat([pad(upstream[rows], group).flatten(0, 1) for rows, group, _ in groups])
    sides: dict[str, Any] = {
        "ours": (ours, [leaf(x) for x in inputs], upstream),
        PADDED: (padded, [leaf(pad(x, batch)) for x in inputs], pad(upstream, batch)),
        WRAPPED: (wrapped, [leaf(x) for x in inputs], upstream),
        BUCKETS: (bucketed, in_buckets, upstream_buckets),
        DEFINITION: (definition, [leaf(x) for x in inputs], upstream),
    }
    if device.type == "cuda" and dtype != torch.float32:
        sides[FLASH] = (_flash(batch, causal), [leaf(x) for x in inputs], upstream)
        sides[NESTED] = (_nested(batch, causal), [leaf(x) for x in inputs], upstream)
    kind = "causal" if causal else "bidirectional"

    def target(direction: str) -> tuple[str, float] | None:
        if causal and direction == "forward+backward":
            return (PADDED, 3.0 if batch.shape == BEAUTY else 1.0)
        return (FLASH, 1.0) if FLASH in sides else None

    yield from comparisons(
        sides,
        device,
        operation=f"attention, {kind}",
        shape=batch.title,
        d_model=d_model,
        dtype=dtype,
        events=batch.events,
        work=lambda direction: _work(batch, d_model, upstream.element_size(), direction, causal),
        target=target,
    )


def padded_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, causal: bool) -> Tensor:
    """SDPA on (B, L, H, Dh). Causal needs no mask where padding lies behind: no event looks there."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if causal:
        made = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        made = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return made.transpose(1, 2)


def _with_bias(batch: Batch, d_model: int, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Causal attention with a learned bias by time gap, against FlexAttention with the same."""
    from recsys.kernels import attention

    if not hasattr(attention, "AttentionBias"):
        return
    inputs, upstream = _inputs(batch, d_model, dtype, device)
    table = draw(HEADS[d_model], flex.BUCKETS, seed=5, device=device, dtype=torch.float32)
    gaps = draw(batch.events, seed=6, device=device, dtype=torch.float32).mul(3).exp().mul(3600).long()
    timestamps = gaps.cumsum(0)
    options = _schedule(batch)

    def ours(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        bias = attention.AttentionBias(time_table=table, timestamps=timestamps)
        return jagged_attention(
            q, k, v, batch.offsets, causal=True, max_length=batch.longest, bias=bias, **options
        )

    sides: dict[str, Any] = {"ours": (ours, [*(leaf(x) for x in inputs), leaf(table)], upstream)}
    rival = flex.time_biased(pad(timestamps, batch))
    theirs = [*(leaf(pad(x, batch)) for x in inputs), leaf(table)]
    sides["FlexAttention, already padded"] = (rival, theirs, pad(upstream, batch))
    yield from comparisons(
        sides,
        device,
        operation="attention, causal with time bias",
        shape=batch.title,
        d_model=d_model,
        dtype=dtype,
        events=batch.events,
        work=lambda direction: _work(batch, d_model, upstream.element_size(), direction, causal=True),
        alike=(),
        target=lambda direction: ("FlexAttention, already padded", 3.0),
    )


def _work(batch: Batch, d_model: int, size: int, direction: str, causal: bool) -> Work:
    pairs = batch.pairs(causal)
    passes = {"forward": 4, "backward": 8, "forward+backward": 12}[direction]
    products = {"forward": 2, "backward": 5, "forward+backward": 7}[direction]
    return Work(
        bytes=passes * batch.events * d_model * size,
        flops=2 * products * pairs * d_model,
        exps=pairs * HEADS[d_model] * (2 if "+" in direction else 1),
    )


def _key_mask(batch: Batch) -> Tensor:
    """(B, 1, 1, longest): which keys exist."""
    lengths = batch.offsets.diff()
    columns = torch.arange(batch.longest, device=lengths.device)
    return (columns < lengths[:, None])[:, None, None, :]


def _schedule(batch: Batch) -> dict[str, Any]:
    """What spares the GPU kernel a wait for the device."""
    from recsys.kernels import attention

    if batch.offsets.device.type == "cpu" or not hasattr(attention, "AttentionSchedule"):
        return {}
    return {"schedule": attention.AttentionSchedule.from_lengths(batch.lengths).to(batch.offsets.device)}


def _flash(batch: Batch, causal: bool) -> Callable[..., Tensor]:
    offsets, longest = batch.offsets, batch.longest

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        made: Tensor = torch.ops.aten._flash_attention_forward(
            q, k, v, offsets, offsets, longest, longest, 0.0, causal, False
        )[0]
        return made

    return run


def _nested(batch: Batch, causal: bool) -> Callable[..., Tensor]:
    """SDPA on jagged nested tensors, which share the events' memory."""
    offsets, longest = batch.offsets.long(), batch.longest

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        nested = torch.nested.nested_tensor_from_jagged
        q, k, v = (nested(x, offsets, min_seqlen=1, max_seqlen=longest).transpose(1, 2) for x in (q, k, v))
        made: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2)
        return made.values()

    return run
