"""BERT4Rec: a bidirectional Transformer trained by Cloze (Sun et al. 2019, arXiv:1904.06690).

Some items of a sequence are replaced by a mask token and predicted from both sides; at inference the
mask is appended after the last event and its state scores what comes next.

Differs from the paper:
- No item bias in the head, so that a score is an inner product and nearest-neighbour search applies.
- The default block is the gated one that SASRec uses here; the ``paper`` preset keeps BERT's.
- Positions count from the end of the sequence, which is what the authors' left padding amounts to.
- With a time bias, the appended mask has the time at which the answer is wanted if that is known, and the
  last event's time if not (0 for an empty history, where it meets nothing but itself).
- The ``tuned`` preset hides more, attends to the past alone in half of the training steps, and leaves out
  the norm and the layer at the two ends of the network: ``causal_probability``, ``ends``.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import require
from recsys.encoders.base import EncoderConfig, SequenceEncoder, make_norm
from recsys.encoders.bias_tables import require_times
from recsys.encoders.registry import register_encoder
from recsys.encoders.suited import Choice, LogStatistics, dense, few_events, full_softmax, repeating, sparse
from recsys.encoders.transformer import PackedPass, TransformerConfig, make_block
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch
from recsys.kernels.linear import Linear


@dataclass(frozen=True, kw_only=True, slots=True)
class BERT4RecConfig(TransformerConfig):
    """Configuration of :class:`BERT4Rec`."""

    mask_probability: float = 0.2
    """Share of a training sequence's events that Cloze hides; above 0, at most 1. The paper: 0.2 on
    MovieLens, 0.6 on Beauty."""
    last_mask_probability: float = 0.1
    """Share of training sequences of which only the last event is hidden, as at inference; 0 to 1. The
    authors' data generator adds one such copy to ten random ones."""
    causal_probability: float = 0.0
    """Share of training steps in which attention reaches earlier events alone, so that many hidden events
    are predicted from the left as at inference, not only last ones; 0 to 1. The mixture of attention
    masks is UniLM's (arXiv:1905.03197); inference always attends to both sides."""
    ends: Literal["bert", "plain"] = "bert"
    """bert: layer norm on item vectors and a GELU layer before the last norm, as published; plain: neither,
    as in SASRec, so that what attention brings to a mask token outweighs the token sooner."""

    def __post_init__(self) -> None:
        """Check ranges."""
        TransformerConfig.__post_init__(self)
        require(
            self.max_length >= 2, "encoder.max_length", self.max_length, "at least 2, one for the mask token"
        )
        require(
            self.relative_positions == 0 or self.relative_positions % 2 == 1,
            "encoder.relative_positions",
            self.relative_positions,
            "0 or odd, for BERT4Rec sees later events too",
        )
        require(
            self.relative_positions == 0 or self.causal_probability == 0,
            "encoder.relative_positions",
            self.relative_positions,
            "0 unless encoder.causal_probability = 0: one table cannot serve steps of both kinds",
        )
        require(
            0 < self.mask_probability <= 1,
            "encoder.mask_probability",
            self.mask_probability,
            "above 0 and at most 1",
        )
        require(
            0 <= self.last_mask_probability <= 1,
            "encoder.last_mask_probability",
            self.last_mask_probability,
            "between 0 and 1",
        )
        require(
            0 <= self.causal_probability <= 1,
            "encoder.causal_probability",
            self.causal_probability,
            "between 0 and 1",
        )


@dataclass(frozen=True, slots=True, eq=False)
class BERT4RecState:
    """Streaming state of n users: their recent items, encoded anew at every step.

    Attributes:
        items: (n, max_length - 1) int64, right-aligned.
        lengths: (n,) int64.
        timestamps: (n, max_length - 1) int64, right-aligned; (n, 0) for an encoder that reads none.
        local_times: likewise, for the hour baseline.
        codes: (n, max_length - 1, E) int64, what came with the events, likewise; E is 0 if it is not read.
    """

    items: Tensor
    lengths: Tensor
    timestamps: Tensor
    local_times: Tensor
    codes: Tensor


# Searched on the validation events of ml-100k: docs/experiments.md. Cloze supervises a share of the events
# per epoch, so it takes more epochs and is evaluated less often.
TUNED: dict[str, dict[str, Any]] = {
    "encoder": {
        "max_length": 100,
        "dropout": 0.4,
        "mask_probability": 0.4,
        "last_mask_probability": 0.2,
        "causal_probability": 0.5,
        "ends": "plain",
        "repeat_bias": 8,
    },
    "training": {
        "batch_events": 1024,
        "learning_rate": 1.5e-3,
        "weight_decay": 0.1,
        "label_smoothing": 0.1,
        "ema_decay": 0.998,
        "evaluate_every": 5,
        "patience": 8,
    },
}

PAPER: dict[str, dict[str, Any]] = {
    "encoder": {
        "block": "postnorm",
        "positions": "reversed",
        "dropout": 0.2,
        "attention_dropout": 0.2,
        "mask_probability": 0.2,
    },
    "training": {"learning_rate": 1e-4, "weight_decay": 0.01, "warmup_steps": 100, "gradient_clip": 5.0},
}


def suited(log: LogStatistics) -> list[Choice]:
    """What the tuned preset changes for a log."""
    wide = {"d_model": 128, "max_length": 200, "dropout": 0.2}
    long = {"epochs": 54, "batch_events": 16384, "learning_rate": 0.002, "evaluate_every": 9}
    short = {"max_length": 50, "dropout": 0.5, "mask_probability": 0.6}
    return [
        *dense(log, wide, {**long, "label_smoothing": 0.0, "ema_decay": 0.998}),
        *sparse(log, short, {"batch_events": 2048, "learning_rate": 0.001}),
        *full_softmax(log),
        *repeating(log),
        *few_events(log, TUNED["training"]["batch_events"]),
    ]


@register_encoder("bert4rec", config=BERT4RecConfig, presets={"tuned": TUNED, "paper": PAPER}, suited=suited)
class BERT4Rec(SequenceEncoder):
    """Bidirectional self-attention encoder."""

    causal = False
    n_extra_items = 1
    reads_columns = True
    reads_users = True

    def __init__(self, config: EncoderConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        if self.config.positions in ("learned", "reversed"):
            self.position_embedding = nn.Embedding(config.max_length, config.d_model)
        bert = self.config.ends == "bert"
        self.embedding_norm = make_norm(config) if bert else nn.Identity()
        self.blocks = nn.ModuleList(make_block(self.config, causal=False) for _ in range(config.n_layers))
        self.head = Linear(config.d_model, config.d_model) if bert else nn.Identity()
        self.final_norm = make_norm(config)

    @property
    def needs_timestamps(self) -> bool:
        """True with a time bias."""
        return bool(self.config.time_bias)

    @property
    def reads_request_time(self) -> bool:
        """True with a time bias, too: the mask has the request's time."""
        return self.needs_timestamps or self.needs_local_times

    @property
    def encodes_request_time(self) -> bool:
        """True with a time bias, too: the mask is a part of what is encoded."""
        return self.needs_timestamps or super().encodes_request_time

    @property
    def mask_item(self) -> int:
        """Index of the mask token, V."""
        return self.n_items

    @property
    def history_length(self) -> int:
        """One less than ``max_length``: the mask token takes a place."""
        return int(self.config.max_length) - 1

    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        """States (N, D): at a masked event, the state that scores the hidden item.

        Raises:
            ArgumentError: a sequence is longer than ``config.max_length``.
        """
        if batch.max_length > self.config.max_length:
            raise ArgumentError(
                f"a sequence of {batch.max_length} events exceeds max_length = {self.config.max_length}; "
                "pass the most recent ones (one place is the mask token's)"
            )
        through = PackedPass(batch, self.config, causal=self.looks_back(generator), generator=generator)
        x = self.item_embedding(batch.items)
        if self.config.positions == "learned":
            x = x + self.position_embedding(batch.positions())
        elif self.config.positions == "reversed":
            x = x + self.position_embedding(batch.reversed_positions())
        added = self.added_to_input(batch)
        if added is not None:
            x = x + added
        x = through.drop(self.embedding_norm(x))
        for block in self.blocks:
            x = block(x, through)
        if self.config.ends == "bert":
            x = F.gelu(self.head(x))
        return self.final_norm(x)  # type: ignore[no-any-return]

    def looks_back(self, generator: torch.Generator | None) -> bool:
        """Whether this training step attends to earlier events alone; never at inference."""
        if generator is None or self.config.causal_probability == 0:
            return False
        # Drawn on the host from the step's seed: asking a GPU's generator would hold up every step.
        drawn = np.random.default_rng(generator.initial_seed()).random()
        return bool(drawn < self.config.causal_probability)

    def user_state(
        self,
        batch: SequenceBatch,
        *,
        at: Tensor | None = None,
        local_at: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """(B, D) state of a mask appended after each sequence; empty sequences are allowed.

        Args:
            batch: histories.
            at: (B,) int64 unix seconds at which each answer is wanted, the time of the mask; None is the
                time of the last event. Read by a time bias alone.
            local_at: (B,) int64 local seconds of the same, read by a clock.
            context: (B, R) int64 codes of what is known of each request; None where nothing is.
        """
        masked = batch.append(self.mask_item, at, local_at).asked_in(context)
        return self.forward(masked)[masked.last_rows()]

    def _last_states(self, batch: SequenceBatch) -> Tensor:
        masked = batch.append(self.mask_item)
        return self.encode(masked)[masked.last_rows()]

    def encode_start(self, n: int) -> BERT4RecState:
        """N users without history."""
        device = self.item_embedding.weight.device
        return BERT4RecState(
            torch.zeros(n, self.history_length, dtype=torch.int64, device=device),
            torch.zeros(n, dtype=torch.int64, device=device),
            torch.zeros(
                n, self.history_length if self.needs_timestamps else 0, dtype=torch.int64, device=device
            ),
            torch.zeros(
                n, self.history_length if self.reads_event_hours else 0, dtype=torch.int64, device=device
            ),
            torch.zeros(n, self.history_length, self.n_event_codes, dtype=torch.int64, device=device),
        )

    def encode_step(
        self,
        state: BERT4RecState,
        items: Tensor,
        timestamps: Tensor | None = None,
        local_times: Tensor | None = None,
        asked: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> tuple[Tensor, BERT4RecState]:
        """One event per user. Every step encodes the whole window: attention here is bidirectional.

        Raises:
            ArgumentError: the encoder has a time bias and there are no timestamps.
        """
        require_times(timestamps, self.config.time_bias)
        window = torch.cat((state.items[:, 1:], items[:, None]), dim=1)
        lengths = (state.lengths + 1).clamp(max=self.history_length)
        recent = (
            torch.arange(self.history_length, device=window.device) >= self.history_length - lengths[:, None]
        )
        times, packed = state.timestamps, None
        if timestamps is not None and self.needs_timestamps:
            times = torch.cat((times[:, 1:], timestamps[:, None]), dim=1)
            packed = times[recent].cpu().numpy()
        local, packed_local = state.local_times, None
        if local_times is not None and self.reads_event_hours:
            local = torch.cat((local[:, 1:], local_times[:, None]), dim=1)
            packed_local = local[recent].cpu().numpy()
        codes, packed_codes = state.codes, None
        if self.n_event_codes:
            newest = codes.new_zeros(len(items), self.n_event_codes) if columns is None else columns
            codes = torch.cat((codes[:, 1:], newest[:, None]), dim=1)
            packed_codes = codes[recent].cpu().numpy()
        batch = SequenceBatch.from_lengths(
            window[recent].cpu().numpy(),
            lengths.cpu().numpy(),
            packed,
            packed_local,
            event_codes=packed_codes,
        )
        masked = batch.to(window.device).append(self.mask_item, local_times=asked)
        hidden = self.encode(masked)[masked.last_rows()]
        return hidden, replace(
            state, items=window, lengths=lengths, timestamps=times, local_times=local, codes=codes
        )

    def encode_prefill(self, batch: SequenceBatch) -> tuple[Tensor, BERT4RecState]:
        """States (B, D) of masks appended after whole sequences, and the windows that steps encode.

        Raises:
            ArgumentError: a sequence is empty or longer than `history_length`, or lacks times.
        """
        if batch.max_length > self.history_length:
            raise ArgumentError(
                f"a sequence of {batch.max_length} events exceeds {self.history_length}, max_length less the "
                "mask token; pass the most recent ones"
            )
        batch.last_rows()  # refuses empty ones
        hidden = self._last_states(batch)
        state = self.encode_start(batch.batch_size)
        lengths = torch.from_numpy(batch.lengths).to(hidden.device)
        rows = torch.arange(batch.batch_size, device=hidden.device).repeat_interleave(lengths)
        places = self.history_length - 1 - batch.reversed_positions()
        state.items[rows, places] = batch.items
        if batch.timestamps is not None and self.needs_timestamps:
            state.timestamps[rows, places] = batch.timestamps
        if batch.local_times is not None and self.reads_event_hours:
            state.local_times[rows, places] = batch.local_times
        if batch.event_codes is not None and self.n_event_codes:
            state.codes[rows, places] = batch.event_codes
        return hidden, replace(state, lengths=lengths)
