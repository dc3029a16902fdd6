"""SASRec: a causal Transformer over a user's items (Kang and McAuley 2018, arXiv:1808.09781).

Differs from the paper:
- The default loss is cross-entropy over the catalog, which lifts it most ("Turning Dross Into Gold
  Loss", RecSys 2023); the ``paper`` preset has the published one, BCE with one uniform negative per
  event. Its negatives avoid the event's own target; the authors' avoid all items of the user.
- The default block is LiGR's (gated residuals, SwiGLU; eSASRec, RecSys 2025) with rotary positions.
- Sequences are packed; nothing is padded and there is no padding item.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recsys.encoders.base import EncoderConfig, SequenceEncoder, make_norm
from recsys.encoders.bias_tables import require_times
from recsys.encoders.registry import register_encoder
from recsys.encoders.suited import Choice, LogStatistics, dense, few_events, full_softmax, repeating, sparse
from recsys.encoders.transformer import PackedPass, StepPass, TransformerConfig, make_block
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class SASRecConfig(TransformerConfig):
    """Configuration of :class:`SASRec`."""

    scale_embedding: bool = False
    """Multiply item vectors by the square root of d_model on the way in, as the authors' code does."""


@dataclass(frozen=True, slots=True, eq=False)
class SASRecState:
    """Streaming state of n users: keys and values of each layer, and the window they belong to.

    Attributes:
        keys, values: (layers, n, L, H, E).
        items: (n, L) int64, the events in the window.
        lengths: (n,) int64, how many of them are filled.
        timestamps: (n, L) int64, their times; (n, 0) for an encoder that reads none.
        local_times: (n, L) int64, likewise, for the hour baseline.
        codes: (n, L, E) int64, what came with the events, for an encoder that reads it; else (n, L, 0).
    """

    user_axes: ClassVar[dict[str, int]] = {"keys": 1, "values": 1}
    keys: Tensor
    values: Tensor
    items: Tensor
    lengths: Tensor
    timestamps: Tensor
    local_times: Tensor
    codes: Tensor


# Searched on the validation events of ml-100k: docs/experiments.md.
TUNED: dict[str, dict[str, Any]] = {
    "encoder": {"dropout": 0.5, "repeat_bias": 8},
    "training": {"batch_events": 2048, "label_smoothing": 0.1, "ema_decay": 0.99},
}

PAPER: dict[str, dict[str, Any]] = {
    "encoder": {
        "block": "sasrec",
        "positions": "learned",
        "d_model": 50,
        "n_heads": 1,
        "d_ff": 50,
        "dropout": 0.2,
        "attention_dropout": 0.2,
        "scale_embedding": True,
    },
    "training": {
        "loss": "bce",
        "negatives": 1,
        "negative_sampling": "uniform",
        "learning_rate": 1e-3,
        "betas": (0.9, 0.98),
        "weight_decay": 0.0,
        "warmup_steps": 0,
    },
}


def suited(log: LogStatistics) -> list[Choice]:
    """What the tuned preset changes for a log."""
    wide = {"d_model": 128, "dropout": 0.3}
    long = {"epochs": 45, "batch_events": 16384, "learning_rate": 0.002, "evaluate_every": 9}
    return [
        *dense(log, wide, {**long, "label_smoothing": 0.0, "ema_decay": 0.998}),
        *sparse(log, {"max_length": 50, "item_sum": True}, {}),
        *full_softmax(log),
        *repeating(log),
        *few_events(log, TUNED["training"]["batch_events"]),
    ]


@register_encoder("sasrec", config=SASRecConfig, presets={"tuned": TUNED, "paper": PAPER}, suited=suited)
class SASRec(SequenceEncoder):
    """Causal self-attention encoder."""

    causal = True
    reads_columns = True
    reads_users = True

    def __init__(self, config: EncoderConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        if self.config.positions in ("learned", "reversed"):
            self.position_embedding = nn.Embedding(config.max_length, config.d_model)
        self.blocks = nn.ModuleList(make_block(self.config, causal=True) for _ in range(config.n_layers))
        self.final_norm = make_norm(config)

    @property
    def needs_timestamps(self) -> bool:
        """True with a time bias."""
        return bool(self.config.time_bias)

    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        """States (N, D); see :meth:`SequenceEncoder.encode`.

        Raises:
            ArgumentError: a sequence is longer than ``config.max_length``.
        """
        return self._encode(batch, self._pass(batch, generator))

    def encode_start(self, n: int) -> SASRecState:
        """Empty windows of n users."""
        c = self.config
        weight = self.item_embedding.weight
        shape = (c.n_layers, n, c.max_length, c.n_heads, c.d_model // c.n_heads)

        def integers(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=weight.device)

        return SASRecState(
            weight.new_zeros(shape),
            weight.new_zeros(shape),
            integers(n, c.max_length),
            integers(n),
            integers(n, c.max_length if self.needs_timestamps else 0),
            integers(n, c.max_length if self.reads_event_hours else 0),
            integers(n, c.max_length, self.n_event_codes),
        )

    def encode_step(
        self,
        state: SASRecState,
        items: Tensor,
        timestamps: Tensor | None = None,
        local_times: Tensor | None = None,
        asked: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> tuple[Tensor, SASRecState]:
        """One event per user in O(L) each.

        A full window moves on by one event, which changes every position in it: those users, and all
        users when positions count from the end, are encoded anew.

        Raises:
            ArgumentError: the encoder has a time bias and there are no timestamps.
        """
        require_times(timestamps, self.config.time_bias)
        full = state.lengths == self.config.max_length
        if bool(full.any()):
            shifted = torch.where(full[:, None], state.items.roll(-1, dims=1), state.items)
            times = torch.where(full[:, None], state.timestamps.roll(-1, dims=1), state.timestamps)
            local = torch.where(full[:, None], state.local_times.roll(-1, dims=1), state.local_times)
            codes = torch.where(full[:, None, None], state.codes.roll(-1, dims=1), state.codes)
            lengths = state.lengths - full.to(torch.int64)
            state = replace(
                state, items=shifted, timestamps=times, local_times=local, codes=codes, lengths=lengths
            )
        users = torch.arange(len(items), device=items.device)
        state.items[users, state.lengths] = items
        if timestamps is not None and self.needs_timestamps:
            state.timestamps[users, state.lengths] = timestamps
        if self.reads_event_hours and local_times is not None:
            state.local_times[users, state.lengths] = local_times
        if self.n_event_codes:
            state.codes[users, state.lengths] = 0 if columns is None else columns
        added = self.added_at_step(len(items), local_times, columns, state.lengths == 0)
        anew = full if self.config.positions != "reversed" else torch.ones_like(full)
        hidden = self.item_embedding.weight.new_empty(len(items), self.config.d_model)
        if not bool(anew.all()):
            stepped = self._step_cached(state, items, added)
            hidden[~anew] = stepped[~anew]
        if bool(anew.any()):
            hidden[anew] = self._encode_window(state, anew.nonzero()[:, 0])
        return hidden, replace(state, lengths=state.lengths + 1)

    def encode_prefill(self, batch: SequenceBatch) -> tuple[Tensor, SASRecState]:
        """Last states (B, D), and windows filled by one pass over packed sequences.

        Raises:
            ArgumentError: a sequence is empty or longer than ``config.max_length``, or lacks times.
        """
        through = self._pass(batch, None, keep_cache=True)
        last = batch.last_rows()
        hidden = self._encode(batch, through)[last]
        state = self.encode_start(batch.batch_size)
        lengths = torch.from_numpy(batch.lengths).to(last.device)
        rows = torch.arange(batch.batch_size, device=last.device).repeat_interleave(lengths)
        places = batch.positions()
        state.items[rows, places] = batch.items
        if batch.timestamps is not None and self.needs_timestamps:
            state.timestamps[rows, places] = batch.timestamps
        if batch.local_times is not None and self.reads_event_hours:
            state.local_times[rows, places] = batch.local_times
        if batch.event_codes is not None and self.n_event_codes:
            state.codes[rows, places] = batch.event_codes
        _fill(state, through, rows, places)
        return hidden, replace(state, lengths=lengths)

    def _pass(
        self, batch: SequenceBatch, generator: torch.Generator | None, *, keep_cache: bool = False
    ) -> PackedPass:
        if batch.max_length > self.config.max_length:
            raise ArgumentError(
                f"a sequence of {batch.max_length} events exceeds max_length = {self.config.max_length}; "
                "pass the most recent ones"
            )
        return PackedPass(batch, self.config, causal=True, generator=generator, keep_cache=keep_cache)

    def _encode(self, batch: SequenceBatch, through: PackedPass) -> Tensor:
        positions = None
        if self.config.positions == "learned":
            positions = batch.positions()
        elif self.config.positions == "reversed":
            positions = batch.reversed_positions()
        return self._blocks(batch.items, positions, through, self.added_to_input(batch))

    def _blocks(
        self,
        items: Tensor,
        positions: Tensor | None,
        through: PackedPass | StepPass,
        added: Tensor | None,
    ) -> Tensor:
        x = self.item_embedding(items)
        if self.config.scale_embedding:
            x = x * self.config.d_model**0.5
        if positions is not None:
            x = x + self.position_embedding(positions)
        if added is not None:
            x = x + added
        x = through.drop(x)
        for block in self.blocks:
            x = block(x, through)
        return self.final_norm(x)  # type: ignore[no-any-return]

    def _step_cached(self, state: SASRecState, items: Tensor, added: Tensor | None) -> Tensor:
        times = state.timestamps if self.needs_timestamps else None
        through = StepPass(state.keys, state.values, state.lengths, self.config, times)
        positions = state.lengths if self.config.positions == "learned" else None
        return self._blocks(items, positions, through, added)

    def _encode_window(self, state: SASRecState, users: Tensor) -> Tensor:
        """Encode the windows of some users whole, refill their caches, return their last states."""
        lengths = state.lengths[users] + 1
        taken = torch.arange(self.config.max_length, device=users.device) < lengths[:, None]
        times = state.timestamps[users][taken].cpu().numpy() if self.needs_timestamps else None
        items = state.items[users][taken].cpu().numpy()
        local = state.local_times[users][taken].cpu().numpy() if self.reads_event_hours else None
        codes = state.codes[users][taken].cpu().numpy() if self.n_event_codes else None
        counts = lengths.cpu().numpy()
        batch = SequenceBatch.from_lengths(items, counts, times, local, event_codes=codes).to(users.device)
        through = self._pass(batch, None, keep_cache=True)
        hidden = self._encode(batch, through)
        _fill(state, through, users.repeat_interleave(lengths), batch.positions())
        return hidden[batch.last_rows()]


def _fill(state: SASRecState, through: PackedPass, rows: Tensor, places: Tensor) -> None:
    """Put a pass's keys and values (N, H, E) at places of users' windows."""
    for layer, (k, v) in enumerate(through.cache or ()):
        state.keys[layer][rows, places] = k
        state.values[layer][rows, places] = v
