"""Mamba: a selective state-space encoder (Gu and Dao 2023, arXiv:2312.00752; Mamba4Rec, arXiv:2403.03900).

Glossary: N events, D = d_model, E = d_inner = expand * D, S = d_state, R = dt_rank = ceil(D / 16).
Parameters bear mamba-ssm's names and shapes (in_proj, conv1d, x_proj, dt_proj, A_log, D, out_proj), so
that weights of one Mamba-1 layer move between the two unchanged.

Differs from Mamba4Rec:
- The default block is pre-norm with a residual around each part; ``block = "mamba4rec"`` is theirs.
- The step size starts in [0.001, 0.1] as in mamba-ssm. Mamba4Rec's initializer overwrites that with
  zero bias (a step of 0.69); ``dt_init = "zero"`` reproduces it.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import require
from recsys.encoders.base import EncoderConfig, SequenceEncoder, make_norm
from recsys.encoders.registry import register_encoder
from recsys.encoders.suited import Choice, LogStatistics, dense, few_events, full_softmax, repeating, sparse
from recsys.jagged import SequenceBatch
from recsys.kernels.conv import causal_conv, causal_conv_step
from recsys.kernels.linear import Linear
from recsys.kernels.pointwise import activate, add_dropped, dropout
from recsys.kernels.scan import ScanSchedule, selective_scan, selective_scan_step


@dataclass(frozen=True, kw_only=True, slots=True)
class MambaConfig(EncoderConfig):
    """Configuration of :class:`Mamba`."""

    d_state: int = 16
    """State dimensions per channel; 1 to 256. mamba-ssm: 16, Mamba4Rec: 32."""
    d_conv: int = 4
    """Width of the causal convolution, in events; 2 to 4."""
    expand: int = 2
    """d_inner = expand * d_model; 1 or more."""
    d_ff: int = 256
    """Width of the feed-forward layer after each mixer; 1 or more."""
    block: Literal["prenorm", "mamba4rec"] = "prenorm"
    """prenorm: x + f(LN(x)) for mixer and feed-forward; mamba4rec: as published, LN(x + f(x)), the
    first residual left out when there is a single layer."""
    dt_init: Literal["mamba", "zero"] = "mamba"
    """Start of the step size: log-uniform in [0.001, 0.1], or a zero bias."""

    def __post_init__(self) -> None:
        """Check ranges."""
        EncoderConfig.__post_init__(self)
        require(1 <= self.d_state <= 256, "encoder.d_state", self.d_state, "between 1 and 256")
        require(2 <= self.d_conv <= 4, "encoder.d_conv", self.d_conv, "2, 3 or 4")
        require(self.expand >= 1, "encoder.expand", self.expand, "at least 1")
        require(self.d_ff >= 1, "encoder.d_ff", self.d_ff, "at least 1")


@dataclass(frozen=True, slots=True, eq=False)
class MambaState:
    """Streaming state of n users, of a size that does not grow with their history.

    Attributes:
        conv: one (n, E, d_conv - 1) per layer, the last inputs of the convolution.
        scan: one (n, E, S) float32 per layer.
        begun: (n,) bool, users who have had an event; None where no columns of users are read.
    """

    conv: tuple[Tensor, ...]
    scan: tuple[Tensor, ...]
    begun: Tensor | None = None


# Searched on the validation events of ml-100k: docs/experiments.md. Weights are averaged over some ten
# epochs: validation then rises for longer and with less noise.
TUNED: dict[str, dict[str, Any]] = {
    "encoder": {"dropout": 0.5, "d_state": 32, "repeat_bias": 8},
    "training": {
        "batch_events": 2048,
        "weight_decay": 0.1,
        "label_smoothing": 0.1,
        "ema_decay": 0.998,
        "evaluate_every": 2,
        "patience": 10,
    },
}

PAPER: dict[str, dict[str, Any]] = {
    "encoder": {"block": "mamba4rec", "n_layers": 1, "d_state": 32, "dropout": 0.2, "dt_init": "zero"},
    "training": {"learning_rate": 1e-3, "weight_decay": 0.0, "warmup_steps": 0},
}


def suited(log: LogStatistics) -> list[Choice]:
    """What the tuned preset changes for a log."""
    wide = {"d_model": 128, "dropout": 0.3}
    long = {"epochs": 36, "batch_events": 16384, "learning_rate": 0.002, "evaluate_every": 9}
    return [
        *dense(log, wide, {**long, "label_smoothing": 0.0, "ema_decay": 0.998}),
        *sparse(log, {"max_length": 50}, {}),
        *full_softmax(log),
        *repeating(log),
        *few_events(log, TUNED["training"]["batch_events"]),
    ]


@register_encoder("mamba", config=MambaConfig, presets={"tuned": TUNED, "paper": PAPER}, suited=suited)
class Mamba(SequenceEncoder):
    """Selective state-space encoder; linear in the length of a history, constant per new event."""

    causal = True
    reads_columns = True
    reads_users = True

    def __init__(self, config: EncoderConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        if self.config.block == "mamba4rec":
            self.embedding_norm = make_norm(config, 1e-12)
        self.blocks = nn.ModuleList(MambaBlock(self.config) for _ in range(config.n_layers))
        prenorm = self.config.block == "prenorm"
        self.final_norm = make_norm(config) if prenorm else nn.Identity()

    def initialize(self, generator: torch.Generator) -> None:
        """The common start, then the state-space parameters as in mamba-ssm."""
        super().initialize(generator)
        for block in self._blocks():
            block.mixer.initialize(generator, self.config.dt_init)

    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        """States (N, D); see :meth:`SequenceEncoder.encode`."""
        x = self._embed(batch.items, self.added_to_input(batch), generator)
        for block in self.blocks:
            x = block(x, batch.offsets, generator, batch.scan_schedule, batch.places)
        return self.final_norm(x)  # type: ignore[no-any-return]

    def encode_start(self, n: int) -> MambaState:
        """Zero states of n users."""
        conv, scan = zip(*(block.mixer.initial_state(n) for block in self._blocks()), strict=True)
        begun = None
        if self.user_input is not None:
            begun = torch.zeros(n, dtype=torch.bool, device=self.item_embedding.weight.device)
        return MambaState(conv, scan, begun)

    def encode_step(
        self,
        state: MambaState,
        items: Tensor,
        timestamps: Tensor | None = None,
        local_times: Tensor | None = None,
        asked: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> tuple[Tensor, MambaState]:
        """One event per user in O(E S), whatever the length of the history."""
        first = None if state.begun is None else ~state.begun
        x = self._embed(items, self.added_at_step(len(items), local_times, columns, first), None)
        states = []
        for block, conv, scan in zip(self._blocks(), state.conv, state.scan, strict=True):
            x, new = block.step(x, (conv, scan))
            states.append(new)
        return self.final_norm(x), self._after(states)

    def encode_prefill(self, batch: SequenceBatch) -> tuple[Tensor, MambaState]:
        """Last states (B, D), and the states of convolution and scan after one pass; of any length.

        Raises:
            ArgumentError: a sequence is empty.
        """
        last = batch.last_rows()
        x = self._embed(batch.items, self.added_to_input(batch), None)
        states = []
        for block in self._blocks():
            x, new = block.prefill(x, batch.offsets, batch.scan_schedule, batch.places)
            states.append(new)
        return self.final_norm(x[last]), self._after(states)

    def _after(self, states: "list[tuple[Tensor, Tensor]]") -> MambaState:
        """The state after an event of every user."""
        conv, scan = zip(*states, strict=True)
        begun = None
        if self.user_input is not None:
            begun = torch.ones(len(conv[0]), dtype=torch.bool, device=conv[0].device)
        return MambaState(conv, scan, begun)

    def _blocks(self) -> list["MambaBlock"]:
        return [block for block in self.blocks if isinstance(block, MambaBlock)]

    def _embed(self, items: Tensor, added: Tensor | None, generator: torch.Generator | None) -> Tensor:
        x = self.item_embedding(items)
        x = dropout(x if added is None else x + added, self.config.dropout, generator)
        return self.embedding_norm(x) if self.config.block == "mamba4rec" else x


class MambaBlock(nn.Module):
    """A mixer and a feed-forward layer, each with its residual and norm."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.config = config
        self.mixer_norm = make_norm(config, 1e-12)
        self.mixer = MambaMixer(config)
        self.feed_forward_norm = make_norm(config, 1e-12)
        swiglu = config.feed_forward == "swiglu"
        self.up = Linear(config.d_model, (1 + swiglu) * config.d_ff, bias=not swiglu)
        self.down = Linear(config.d_ff, config.d_model, bias=not swiglu)

    def forward(
        self,
        x: Tensor,
        offsets: Tensor,
        generator: torch.Generator | None,
        schedule: ScanSchedule | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Packed rows (N, D) to rows (N, D)."""
        prenorm = self.config.block == "prenorm"
        mixed = self.mixer(self.mixer_norm(x) if prenorm else x, offsets, schedule, places)
        return self._after_mixer(x, mixed, generator)

    def prefill(
        self, x: Tensor, offsets: Tensor, schedule: ScanSchedule | None, places: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Packed rows (N, D) to rows (N, D), and the states after each sequence."""
        prenorm = self.config.block == "prenorm"
        mixed, state = self.mixer.prefill(self.mixer_norm(x) if prenorm else x, offsets, schedule, places)
        return self._after_mixer(x, mixed, None), state

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(n, D) one event of each user."""
        prenorm = self.config.block == "prenorm"
        mixed, state = self.mixer.step(self.mixer_norm(x) if prenorm else x, state)
        return self._after_mixer(x, mixed, None), state

    def _after_mixer(self, x: Tensor, mixed: Tensor, generator: torch.Generator | None) -> Tensor:
        p = self.config.dropout
        if self.config.block == "prenorm":
            x = add_dropped(x, mixed, p, generator)
            return add_dropped(x, self._feed_forward(self.feed_forward_norm(x), generator), p, generator)
        alone = self.config.n_layers == 1
        x = self.mixer_norm(dropout(mixed, p, generator) if alone else add_dropped(x, mixed, p, generator))
        added = add_dropped(x, self._feed_forward(x, generator), p, generator)
        return self.feed_forward_norm(added)  # type: ignore[no-any-return]

    def _feed_forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        kind: Literal["swiglu", "gelu"] = "swiglu" if self.config.feed_forward == "swiglu" else "gelu"
        return self.down(activate(self.up(x), kind, self.config.dropout, generator))  # type: ignore[no-any-return]


class MambaMixer(nn.Module):
    """One Mamba-1 layer, (N, D) -> (N, D): gate, convolution, selective scan (Mamba, Algorithm 2)."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        d_inner = config.expand * config.d_model
        self.d_state = config.d_state
        self.dt_rank = math.ceil(config.d_model / 16)
        self.in_proj = Linear(config.d_model, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, config.d_conv, groups=d_inner)
        self.x_proj = Linear(d_inner, self.dt_rank + 2 * config.d_state, bias=False)
        self.dt_proj = Linear(self.dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.empty(d_inner, config.d_state))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = Linear(d_inner, config.d_model, bias=False)

    def initialize(self, generator: torch.Generator, dt_init: str) -> None:
        """Start convolution, A, D and the step size as mamba-ssm does, from ``generator``."""
        with torch.no_grad():
            bound = self.conv1d.weight.shape[-1] ** -0.5
            self.conv1d.weight.uniform_(-bound, bound, generator=generator)
            self.conv1d.bias.uniform_(-bound, bound, generator=generator)  # type: ignore[union-attr]
            self.A_log.copy_(torch.arange(1, self.d_state + 1).log().expand_as(self.A_log))
            self.D.fill_(1.0)
            if dt_init == "mamba":
                bound = self.dt_rank**-0.5
                self.dt_proj.weight.uniform_(-bound, bound, generator=generator)
                log_dt = torch.empty_like(self.dt_proj.bias).uniform_(
                    math.log(0.001), math.log(0.1), generator=generator
                )
                dt = log_dt.exp().clamp(min=1e-4)
                # Inverse of softplus, so that the first step size is dt.
                self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(
        self,
        x: Tensor,
        offsets: Tensor,
        schedule: ScanSchedule | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Packed rows (N, D) to rows (N, D)."""
        return self._mix(x, offsets, schedule, places, keep=False)[0]

    def prefill(
        self, x: Tensor, offsets: Tensor, schedule: ScanSchedule | None, places: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Packed rows (N, D) to rows (N, D), and the states after each sequence, as `step` takes them."""
        y, states = self._mix(x, offsets, schedule, places, keep=True)
        assert states is not None
        return y, states

    def _mix(
        self,
        x: Tensor,
        offsets: Tensor,
        schedule: ScanSchedule | None,
        places: Tensor | None,
        *,
        keep: bool,
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (N, E) each
        weight, bias = self.conv1d.weight[:, 0], self.conv1d.bias
        mixed = causal_conv(u, weight, bias, offsets, activation="silu", positions=places, return_state=keep)
        u, conv = mixed if isinstance(mixed, tuple) else (mixed, None)
        delta, B, C = self._project(u)
        y = selective_scan(
            u,
            delta,
            self._A(),
            B,
            C,
            self.D,
            z,
            self.dt_proj.bias,
            offsets,
            schedule=schedule,
            return_state=keep,
        )
        y, scan = y if isinstance(y, tuple) else (y, None)
        states = None if conv is None or scan is None else (conv.to(weight.dtype), scan)
        return self.out_proj(y), states

    def initial_state(self, n: int) -> tuple[Tensor, Tensor]:
        """Zero states of n users: (n, E, d_conv - 1) and (n, E, S)."""
        d_inner, _, width = self.conv1d.weight.shape
        weight = self.in_proj.weight
        return weight.new_zeros(n, d_inner, width - 1), self.A_log.new_zeros(n, d_inner, self.d_state)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(n, D) one event of each user."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u, conv = causal_conv_step(state[0], u, self.conv1d.weight[:, 0], self.conv1d.bias, activation="silu")
        delta, B, C = self._project(u)
        y, scan = selective_scan_step(state[1], u, delta, self._A(), B, C, self.D, z, self.dt_proj.bias)
        return self.out_proj(y), (conv, scan)

    def _project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dt, B, C = self.x_proj(u).split((self.dt_rank, self.d_state, self.d_state), dim=-1)
        return F.linear(dt, self.dt_proj.weight), B, C

    def _A(self) -> Tensor:
        return -torch.exp(self.A_log.float())
