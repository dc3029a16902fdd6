"""The check suite passes a right encoder and finds what is wrong with others."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys import SequenceBatch, register_encoder
from recsys.encoders import registry
from recsys.encoders.base import EncoderConfig, SequenceEncoder
from recsys.errors import ConfigError
from recsys.kernels.pointwise import dropout
from recsys.testing import check_encoder, encoder_checks


@dataclass(frozen=True, kw_only=True, slots=True)
class SumConfig(EncoderConfig):
    """Configuration of `Sum`."""


class Sum(SequenceEncoder):
    """A state is the decayed sum of the vectors so far."""

    causal = True

    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        vectors = dropout(self.item_embedding(batch.items), self.config.dropout, generator)
        rows: list[Tensor] = []
        starts = set(batch.offsets.tolist())
        for place, vector in enumerate(vectors):
            rows.append(vector if place in starts else vector + 0.5 * rows[-1])
        return torch.stack(rows)

    def encode_start(self, n: int) -> Tensor:
        return torch.zeros(n, self.config.d_model)

    def encode_step(
        self,
        state: Any,
        items: Tensor,
        timestamps: Tensor | None = None,
        local_times: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        state = self.item_embedding(items) + 0.5 * state
        return state, state


class Leaks(Sum):
    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        states = super().encode(batch, generator=generator)
        return states + 1e-3 * states.sum()


class Peeks(Sum):
    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        states = super().encode(batch, generator=generator)
        last = states[(batch.offsets[1:] - 1).repeat_interleave(batch.offsets.diff())]
        return states + 0.1 * last


class Drifts(Sum):
    def encode_step(self, state: Any, items: Tensor, *times: Any, **other: Any) -> tuple[Tensor, Any]:
        state = self.item_embedding(items) + 0.6 * state
        return state, state


class ReadsUsers(Sum):
    """Counts events, so that the first is known."""

    reads_columns = True
    reads_users = True

    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        added = self.added_to_input(batch)
        vectors = self.item_embedding(batch.items) + (0 if added is None else added)
        vectors = dropout(vectors, self.config.dropout, generator)
        rows: list[Tensor] = []
        starts = set(batch.offsets.tolist())
        for place, vector in enumerate(vectors):
            rows.append(vector if place in starts else vector + 0.5 * rows[-1])
        return torch.stack(rows)

    def encode_start(self, n: int) -> Tensor:
        return torch.zeros(n, self.config.d_model + 1)

    def encode_step(
        self,
        state: Any,
        items: Tensor,
        timestamps: Tensor | None = None,
        local_times: Tensor | None = None,
        asked: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        added = self.added_at_step(len(items), local_times, columns, self.first(state))
        vectors = self.item_embedding(items) + (0 if added is None else added)
        hidden = vectors + 0.5 * state[:, :-1]
        return hidden, torch.cat((hidden, state[:, -1:] + 1), dim=1)

    def first(self, state: Tensor) -> Tensor:
        return state[:, -1] == 0


class EveryEventIsTheFirst(ReadsUsers):
    def first(self, state: Tensor) -> Tensor:
        return state[:, -1] >= 0


class Prefills(Sum):
    def encode_prefill(self, batch: SequenceBatch) -> tuple[Tensor, Any]:
        states = self.encode(batch)[batch.last_rows()]
        return states, states


class ForgetsTheStart(Prefills):
    def encode_prefill(self, batch: SequenceBatch) -> tuple[Tensor, Any]:
        hidden, state = super().encode_prefill(batch)
        return hidden, 0.9 * state


class DropsAtWill(Sum):
    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.dropout(super().encode(batch), self.config.dropout, generator is not None)


class Hides(Sum):
    def __init__(self, config: EncoderConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.unused = torch.nn.Parameter(torch.ones(3))


class Forgets(Sum):
    def __init__(self, config: EncoderConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.secret = torch.rand(())

    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        return super().encode(batch, generator=generator) + self.secret


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


def test_a_right_encoder_passes_by_name_and_by_class() -> None:
    register_encoder("sum", config=SumConfig)(Sum)
    check_encoder("Sum")
    check_encoder(Sum, {"d_model": 16, "dropout": 0.1, "clock": "pool"})
    register_encoder("prefills", config=SumConfig)(Prefills)
    check_encoder("prefills", {"clock": "pool"})
    register_encoder("users", config=SumConfig)(ReadsUsers)
    check_encoder("users")
    assert str(encoder_checks(Sum)[0]) == "hidden_states_have_one_row_per_event"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Leaks, "packing_changes_nothing: "),
        (Peeks, "causal_encoders_are_blind_to_the_future: causal is True and later events change"),
        (EveryEventIsTheFirst, "columns_are_read_by_steps_as_at_once: "),
        (Drifts, "streaming_gives_what_encoding_at_once_gives: "),
        (ForgetsTheStart, "prefilling_gives_what_steps_give: "),
        (DropsAtWill, "dropout_follows_its_generator: the same generator gives other masks"),
        (Hides, "every_parameter_receives_a_gradient: parameters without a gradient: unused"),
        (Forgets, "weights_survive_saving: the state dict does not hold all"),
    ],
)
def test_what_is_wrong_is_named(kind: type[SequenceEncoder], message: str) -> None:
    register_encoder("wrong", config=SumConfig)(kind)
    found = []
    for check in encoder_checks("wrong"):
        try:
            check()
        except AssertionError as error:
            found.append(f"{check}: {error}")
    assert any(text.startswith(message) for text in found), found
    with pytest.raises(AssertionError):
        check_encoder(kind)


def test_what_is_not_registered_or_not_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="Sum is not registered; decorate it"):
        check_encoder(Sum)
    register_encoder("sum", config=SumConfig)(Sum)
    with pytest.raises(ConfigError, match="unknown key encoder.layers"):
        encoder_checks("sum", {"layers": 3})
