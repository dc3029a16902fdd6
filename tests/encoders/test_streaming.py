"""One event at a time over a long history, for the encoders that keep a state."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.base import SequenceEncoder
from recsys.jagged import SequenceBatch

EVENTS, ITEMS, USERS = 500, 40, 2


def _encoder(name: str) -> SequenceEncoder:
    config = encoder_config(name, {"d_model": 16, "n_layers": 2, "max_length": EVENTS})
    return build_encoder(name, ITEMS, config).eval()


def _sizes(state: Any) -> list[torch.Size]:
    tensors = [x for field in _fields(state) for x in (field if isinstance(field, tuple) else (field,))]
    return [x.shape for x in tensors if isinstance(x, Tensor)]


def _fields(state: Any) -> list[Any]:
    return [getattr(state, name) for name in type(state).__slots__]


@pytest.mark.parametrize("name", ["mamba", "sasrec"])
def test_500_steps_give_what_one_pass_gives(name: str) -> None:
    encoder = _encoder(name)
    items = torch.randint(ITEMS, (USERS, EVENTS), generator=torch.Generator().manual_seed(0))
    batch = SequenceBatch.from_lengths(items.flatten().numpy(), [EVENTS] * USERS)
    with torch.no_grad():
        whole = encoder(batch).view(USERS, EVENTS, -1)
        state, streamed = encoder.initial_state(USERS), []
        for t in range(EVENTS):
            hidden, state = encoder.step(state, items[:, t])
            streamed.append(hidden)
    difference = (torch.stack(streamed, dim=1) - whole).abs().max()
    assert difference <= 1e-5
    assert whole.abs().max() > 0.1


def test_the_state_of_mamba_does_not_grow() -> None:
    encoder = _encoder("mamba")
    with torch.no_grad():
        state = encoder.initial_state(USERS)
        sizes = _sizes(state)
        assert sizes
        for t in range(30):
            _, state = encoder.step(state, torch.tensor([t % ITEMS] * USERS))
            assert _sizes(state) == sizes
