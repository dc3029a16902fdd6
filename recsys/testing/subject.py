"""An encoder to be checked, and sequences to check it with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.encoders.base import SequenceEncoder
from recsys.encoders.event_columns import ColumnInputs
from recsys.encoders.registry import build_encoder, encoder_config, registration
from recsys.jagged import SequenceBatch

__all__ = ["EVENT_CODES", "SMALL", "USER_CODES", "Subject", "V", "batch_of", "sequences", "step"]

V = 50
"""Items of the catalog."""
EVENT_CODES, USER_CODES = 5, 7
"""Codes of a column of events and of one of users."""
SMALL: dict[str, object] = {"d_model": 32, "n_layers": 2, "max_length": 24, "dropout": 0.3}
"""Fields that all encoders have."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An encoder's name and its configuration's fields.

    Attributes:
        name: as registered.
        values: fields that differ from the defaults.
    """

    name: str
    values: Mapping[str, object]

    @classmethod
    def of(cls, name: str, options: Mapping[str, object]) -> "Subject":
        """A small one; ConfigError where a field is unknown or out of range."""
        values = {**SMALL, **options}
        encoder_config(name, values)
        return cls(name, values)

    def build(self, seed: int = 0) -> SequenceEncoder:
        """The encoder, in evaluation mode, with weights large enough that mistakes show."""
        return self._large(
            build_encoder(self.name, V, encoder_config(self.name, self.values), seed=seed), seed
        )

    def build_with_columns(self, seed: int = 0) -> SequenceEncoder | None:
        """The same with a column of events and, where it reads such, of users; None where it reads none."""
        kind = registration(self.name).encoder
        if not kind.reads_columns:
            return None
        users = ("user",) if kind.reads_users else ()
        config = encoder_config(
            self.name, {**self.values, "event_columns": ("event",), "user_columns": users}
        )
        columns = ColumnInputs(
            events=(("event", EVENT_CODES),), requests=(), digest="", users=(("user", USER_CODES),)
        )
        return self._large(build_encoder(self.name, V, config, seed=seed, columns=columns), seed)

    def _large(self, encoder: SequenceEncoder, seed: int) -> SequenceEncoder:
        encoder.eval()
        # Weights of 0.02 make every encoder nearly linear.
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if ".tables." in name:
                    # Tables that start at zero would hide what their times and places do.
                    parameter.normal_(generator=generator)
                elif parameter.ndim >= 2 and parameter.shape[-1] > 4:
                    parameter.mul_(5)
        return encoder


def sequences(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Random items of sequences of these lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, n).tolist() for n in lengths]


def batch_of(items: Sequence[Any]) -> SequenceBatch:
    """A batch with times and local times."""
    local = [_local(s, np.arange(len(s))) for s in items]
    return SequenceBatch.from_sequences(items, [times_of(s) for s in items], local)


def step(
    encoder: SequenceEncoder,
    state: Any,
    items: NDArray[np.int64],
    places: Any,
    columns: Tensor | None = None,
) -> tuple[Tensor, Any]:
    """One more event of each user, the event at these places of the users' sequences."""
    local, times = torch.from_numpy(_local(items, places)), torch.from_numpy(times_of(items))
    return encoder.step(state, torch.from_numpy(items), times, local_times=local, columns=columns)


def times_of(items: Any) -> NDArray[np.int64]:
    """A time for each event that follows from its item, so that it stays with it in any window; unsorted."""
    return 2**31 + np.asarray(items, dtype=np.int64) ** 4 % 50_021


def _local(items: Any, places: Any) -> NDArray[np.int64]:
    """Local times in order: the hour follows from the item, the day from the place, two days an event."""
    return np.asarray(places) * 2 * 86_400 + np.asarray(items, dtype=np.int64) * 7_919 % 86_400
