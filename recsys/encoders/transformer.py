"""Transformer blocks over packed sequences, shared by SASRec and BERT4Rec.

A block never sees a batch: it hands its queries, keys and values to a *pass*, which knows whether
whole sequences (:class:`PackedPass`) or single new events (:class:`StepPass`) are being encoded. So
forward and streaming run the same block code.

Shapes: N rows (events), D = d_model, H heads, E = D / H, L = max_length.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import require
from recsys.encoders.base import EncoderConfig, make_norm
from recsys.encoders.bias_tables import BiasTables, require_times
from recsys.jagged import SequenceBatch
from recsys.kernels.attention import attention_step, jagged_attention
from recsys.kernels.attention.bias import MAX_BUCKETS
from recsys.kernels.linear import Linear
from recsys.kernels.pointwise import activate, add_dropped, dropout, rotate_parts

Positions = Literal["learned", "reversed", "rotary", "none"]
Activation = Literal["gelu", "swiglu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig(EncoderConfig):
    """What SASRec and BERT4Rec share beyond :class:`EncoderConfig`."""

    n_heads: int = 2
    """Attention heads; must divide d_model into heads of even width."""
    d_ff: int = 256
    """Width of the feed-forward layer; 1 or more. Four times d_model is the Transformer's own."""
    attention_dropout: float = 0.0
    """Probability of dropping an attention weight in training; 0 up to (not including) 1."""
    positions: Positions = "rotary"
    """learned: a vector per index from the window's start; reversed: per index from its end; rotary:
    rotated queries and keys (RoFormer); none."""
    time_bias: int = 0
    """Buckets of time gaps whose learned score attention adds, per head and layer (HSTU); 0 for none, at most
    120. Four buckets to a doubling of the gap: 64 of them reach 32 hours, 96 reach a year."""
    relative_positions: int = 0
    """Distances between events whose learned score attention adds, per head and layer; longer ones count as
    the longest; 0 for none, at most 131071. BERT4Rec sees both sides and takes an odd number."""
    block: Literal["gated", "prenorm", "postnorm", "sasrec"] = "gated"
    """gated: pre-norm, SwiGLU, gated residuals (LiGR); prenorm and postnorm: GELU; sasrec: as published
    in 2018."""

    def __post_init__(self) -> None:
        """Check ranges."""
        EncoderConfig.__post_init__(self)
        require(
            self.n_heads >= 1 and self.d_model % (2 * self.n_heads) == 0,
            "encoder.n_heads",
            self.n_heads,
            f"a divisor of d_model = {self.d_model} that leaves heads of even width",
        )
        require(self.d_ff >= 1, "encoder.d_ff", self.d_ff, "at least 1")
        require(
            self.block != "sasrec" or self.feed_forward == "block",
            "encoder.feed_forward",
            self.feed_forward,
            "'block' with encoder.block = 'sasrec', which has its own",
        )
        require(
            0 <= self.attention_dropout < 1,
            "encoder.attention_dropout",
            self.attention_dropout,
            "at least 0 and below 1",
        )
        require(
            0 <= self.time_bias <= MAX_BUCKETS,
            "encoder.time_bias",
            self.time_bias,
            f"between 0 and {MAX_BUCKETS}",
        )
        require(
            0 <= self.relative_positions < 2**17,
            "encoder.relative_positions",
            self.relative_positions,
            "between 0 and 131071",
        )


class Pass(Protocol):
    """One encoding pass: where events stand, how attention reaches the others, where dropout comes from."""

    def heads(self, x: Tensor, turned: int) -> Sequence[Tensor]:
        """Take projections (N, P, H, E) apart into P (N, H, E), the first `turned` at rotary positions."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, tables: BiasTables) -> Tensor:
        """(N, H, E) attended values of the next layer in order, whose bias `tables` holds."""

    def drop(self, x: Tensor) -> Tensor:
        """Dropout on activations."""

    def add(self, x: Tensor, y: Tensor, gate: Tensor | None = None) -> Tensor:
        """Dropout on y, times sigmoid(gate) if there is one, and x: a residual, (N, D) each."""


class PackedPass:
    """Whole packed sequences; keeps each layer's keys and values when asked, to start a stream."""

    def __init__(
        self,
        batch: SequenceBatch,
        config: TransformerConfig,
        *,
        causal: bool,
        generator: torch.Generator | None,
        keep_cache: bool = False,
    ) -> None:
        require_times(batch.timestamps, config.time_bias)
        self._batch = batch
        self._config = config
        self._causal = causal
        self._generator = generator
        self._rotation = _rotation(batch.positions(), config) if config.positions == "rotary" else None
        self.cache: list[tuple[Tensor, Tensor]] | None = [] if keep_cache else None

    def heads(self, x: Tensor, turned: int) -> Sequence[Tensor]:
        """Apart, and rotated by each event's position in its sequence."""
        return _heads(x, self._rotation, turned)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, tables: BiasTables) -> Tensor:
        """Attention within each sequence, (N, H, E)."""
        if self.cache is not None:
            self.cache.append((k, v))
        return jagged_attention(
            q,
            k,
            v,
            self._batch.offsets,
            causal=self._causal,
            max_length=self._batch.max_length,
            dropout_p=self._config.attention_dropout if self._generator is not None else 0.0,
            generator=self._generator,
            bias=tables.packed(self._batch.timestamps),
            schedule=self._batch.attention_schedule,
        )

    def drop(self, x: Tensor) -> Tensor:
        """Dropout on activations."""
        return dropout(x, self._config.dropout, self._generator)

    def add(self, x: Tensor, y: Tensor, gate: Tensor | None = None) -> Tensor:
        """A residual with dropout."""
        return add_dropped(x, y, self._config.dropout, self._generator, gate=gate)


class StepPass:
    """One new event of each of n users, against caches of keys and values that it extends in place."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        lengths: Tensor,
        config: TransformerConfig,
        timestamps: Tensor | None = None,
    ) -> None:
        """Take the caches of all layers.

        Args:
            keys: (layers, n, L, H, E).
            values: likewise.
            lengths: (n,) number of events before this one.
            config: of the encoder.
            timestamps: (n, L) times of the window with this event's in its place, for a time bias.
        """
        require_times(timestamps, config.time_bias)
        self._timestamps = timestamps
        self._keys = keys
        self._values = values
        self._lengths = lengths
        self._rotation = _rotation(lengths, config) if config.positions == "rotary" else None
        self._layer = 0

    def heads(self, x: Tensor, turned: int) -> Sequence[Tensor]:
        """Apart, and rotated by the number of events before."""
        return _heads(x, self._rotation, turned)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, tables: BiasTables) -> Tensor:
        """Attention of each user's new event to the user's events so far, (n, H, E)."""
        keys, values = self._keys[self._layer], self._values[self._layer]
        users = torch.arange(len(self._lengths), device=q.device)
        keys[users, self._lengths] = k
        values[users, self._lengths] = v
        self._layer += 1
        added = tables.added(self._timestamps, self._lengths, keys.shape[1])
        return attention_step(q, keys, values, self._lengths + 1, added=added)

    def drop(self, x: Tensor) -> Tensor:
        """Streaming happens at inference: nothing is dropped."""
        return x

    def add(self, x: Tensor, y: Tensor, gate: Tensor | None = None) -> Tensor:
        """A residual."""
        return add_dropped(x, y, gate=gate)


def make_block(config: TransformerConfig, *, causal: bool) -> nn.Module:
    """A block of the kind that ``config.block`` names."""
    kinds = {"gated": GatedBlock, "prenorm": PrenormBlock, "postnorm": PostnormBlock, "sasrec": SasrecBlock}
    tables = BiasTables(config.n_heads, config.time_bias, config.relative_positions, causal=causal)
    return kinds[config.block](config, tables)


class SelfAttention(nn.Module):
    """Multi-head self-attention, (N, D) -> (N, D)."""

    def __init__(self, config: TransformerConfig, tables: BiasTables) -> None:
        super().__init__()
        self.tables = tables
        self.n_heads = config.n_heads
        self.qkv = Linear(config.d_model, 3 * config.d_model)
        self.out = Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, through: Pass) -> Tensor:
        """Rows (N, D) to rows (N, D)."""
        q, k, v = through.heads(self.qkv(x).view(len(x), 3, self.n_heads, -1), 2)
        return self.out(through.attend(q, k, v, self.tables).reshape(x.shape))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers with GELU between, or SwiGLU, (N, D) -> (N, D)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        swiglu = config.feed_forward == "swiglu"
        self.activation: Activation = "swiglu" if swiglu else "gelu"
        self.up = Linear(config.d_model, (1 + swiglu) * config.d_ff, bias=not swiglu)
        self.down = Linear(config.d_ff, config.d_model, bias=not swiglu)

    def forward(self, x: Tensor) -> Tensor:
        """Rows (N, D) to rows (N, D)."""
        return self.down(activate(self.up(x), self.activation))  # type: ignore[no-any-return]


class PrenormBlock(nn.Module):
    """x + f(LN(x)) for attention and feed-forward."""

    def __init__(self, config: TransformerConfig, tables: BiasTables) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = SelfAttention(config, tables)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, through: Pass) -> Tensor:
        """Rows (N, D) to rows (N, D)."""
        x = through.add(x, self.attention(self.attention_norm(x), through))
        return through.add(x, self.feed_forward(self.feed_forward_norm(x)))


class PostnormBlock(nn.Module):
    """LN(x + f(x)), as in BERT."""

    def __init__(self, config: TransformerConfig, tables: BiasTables) -> None:
        super().__init__()
        self.attention = SelfAttention(config, tables)
        self.attention_norm = make_norm(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = make_norm(config)

    def forward(self, x: Tensor, through: Pass) -> Tensor:
        """Rows (N, D) to rows (N, D)."""
        x = self.attention_norm(through.add(x, self.attention(x, through)))
        return self.feed_forward_norm(through.add(x, self.feed_forward(x)))  # type: ignore[no-any-return]


class GatedBlock(nn.Module):
    """Pre-norm block with SwiGLU and residuals gated by the un-normed input (LiGR, arXiv:2502.03417).

    x + sigmoid(W1 x) * attention(LN(x)), then x + sigmoid(W2 x) * SwiGLU(LN(x)).
    """

    def __init__(self, config: TransformerConfig, tables: BiasTables) -> None:
        super().__init__()
        d = config.d_model
        self.attention_norm = make_norm(config)
        self.attention = SelfAttention(config, tables)
        self.attention_gate = Linear(d, d)
        self.feed_forward_norm = make_norm(config)
        swiglu = config.feed_forward != "gelu"
        self.activation: Activation = "swiglu" if swiglu else "gelu"
        self.up = Linear(d, (1 + swiglu) * config.d_ff, bias=not swiglu)
        self.down = Linear(config.d_ff, d, bias=not swiglu)
        self.feed_forward_gate = Linear(d, d)

    def forward(self, x: Tensor, through: Pass) -> Tensor:
        """Rows (N, D) to rows (N, D)."""
        mixed = self.attention(self.attention_norm(x), through)
        x = through.add(x, mixed, self.attention_gate(x))
        hidden = activate(self.up(self.feed_forward_norm(x)), self.activation)
        return through.add(x, self.down(hidden), self.feed_forward_gate(x))


class SasrecBlock(nn.Module):
    """The block of SASRec as its authors coded it (arXiv:1808.09781, their ``modules.py``).

    The query alone is normalized, the residual adds the *normalized* query, there is no output
    projection, and the feed-forward layer is ReLU between two dropouts.
    """

    def __init__(self, config: TransformerConfig, tables: BiasTables) -> None:
        super().__init__()
        d = config.d_model
        self.n_heads = config.n_heads
        self.tables = tables
        self.attention_norm = make_norm(config, 1e-8)
        self.q = Linear(d, d)
        self.kv = Linear(d, 2 * d)
        self.feed_forward_norm = make_norm(config, 1e-8)
        self.up = Linear(d, config.d_ff)
        self.down = Linear(config.d_ff, d)

    def forward(self, x: Tensor, through: Pass) -> Tensor:
        """Rows (N, D) to rows (N, D)."""
        query = self.attention_norm(x)
        (q,) = through.heads(self.q(query).view(len(x), 1, self.n_heads, -1), 1)
        k, v = through.heads(self.kv(x).view(len(x), 2, self.n_heads, -1), 1)
        x = self.feed_forward_norm(query + through.attend(q, k, v, self.tables).reshape(x.shape))
        return through.add(x, self.down(through.drop(F.relu(self.up(x)))))


def _rotation(positions: Tensor, config: TransformerConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines (N, E/2) of RoFormer's angles, position * 10000^(-2i/E) (arXiv:2104.09864)."""
    half = config.d_model // config.n_heads // 2
    rate = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10_000.0) / half))
    angles = positions.to(torch.float32)[:, None] * rate
    return angles.cos(), angles.sin()


def _heads(x: Tensor, rotation: tuple[Tensor, Tensor] | None, turned: int) -> Sequence[Tensor]:
    return x.unbind(1) if rotation is None else rotate_parts(x, *rotation, turned)
