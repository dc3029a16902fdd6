"""Streams begun with whole histories at once; that they equal steps is part of the encoders' contract."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.streams import join_states, split_states, tensors_of
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch
from recsys.kernels.shared.backends import prefer_backend

NAMES = ("sasrec", "bert4rec", "mamba")
ITEMS, POISONED = 30, 29


def encoder_of(name: str, **options: object) -> SequenceEncoder:
    config = encoder_config(name, {"d_model": 16, "n_layers": 2, "max_length": 12, **options})
    encoder = build_encoder(name, ITEMS, config).eval()
    drawn = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=drawn) * 0.1)
    return encoder


def batch(lengths: list[int], seed: int = 0) -> SequenceBatch:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    days = np.concatenate([np.arange(length) for length in lengths]) * 86_400
    times = days + rng.integers(0, 86_400, n)
    return SequenceBatch.from_lengths(rng.integers(0, POISONED, n), lengths, times, times)


@pytest.mark.parametrize("item_sum", [False, True])
@pytest.mark.parametrize("clock", ["off", "pool", "hours"])
@pytest.mark.parametrize("name", NAMES)
def test_states_are_those_of_encoding(name: str, clock: str, item_sum: bool) -> None:
    encoder, histories = encoder_of(name, clock=clock, item_sum=item_sum), batch([7, 1, 11, 3])
    with torch.no_grad():
        hidden, state = encoder.prefill(histories)
        same = (
            encoder.user_state(histories) if clock != "pool" else encoder.recall(encoder.remember(histories))
        )
        assert torch.equal(hidden, same)
        with prefer_backend("reference"):
            plain, plain_state = encoder.prefill(histories)
    torch.testing.assert_close(hidden, plain, rtol=1e-4, atol=1e-5)
    for found, wanted in zip(tensors_of(state), tensors_of(plain_state), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_poisoned_user_reaches_nobody(name: str) -> None:
    """Not with NaN in what is encoded, nor in the streams that are stepped together."""
    encoder, histories = encoder_of(name), batch([7, 4, 9])
    items = histories.items.clone()
    items[7:11] = POISONED
    with torch.no_grad():
        clean, clean_state = encoder.prefill(histories)
        clean_after, _ = encoder.step(clean_state, torch.tensor([1, 2, 3]))
        encoder.item_embedding.weight[POISONED] = torch.nan
        hidden, state = encoder.prefill(histories.with_items(items))
        apart = split_states(state, 3)
        after, _ = encoder.step(join_states(apart), torch.tensor([1, 2, 3]))
    for found, wanted in ((hidden, clean), (after, clean_after)):
        assert torch.equal(found[[0, 2]], wanted[[0, 2]])
        assert bool(found[1].isnan().all())


@pytest.mark.parametrize("name", NAMES)
def test_histories_that_no_stream_begins_with_are_refused(name: str) -> None:
    encoder = encoder_of(name)
    with torch.no_grad():
        with pytest.raises(ArgumentError, match="no last event"):
            encoder.prefill(batch([3, 0]))
        if name != "mamba":
            with pytest.raises(ArgumentError, match="pass the most recent ones"):
                encoder.prefill(batch([encoder.history_length + 1]))
        without = SequenceBatch.from_lengths([1, 2], [2])
        for clock in ("pool", "hours"):
            with pytest.raises(ArgumentError, match="reads the local time of every event"):
                encoder_of(name, clock=clock).prefill(without)


@dataclass(frozen=True)
class _State:
    parts: tuple[torch.Tensor, ...]
    named: dict[str, Any]
    nothing: None = None


def test_states_of_any_shape_are_joined_and_taken_apart() -> None:
    made = [_State((torch.full((1, 2), float(n)),), {"a": [torch.tensor([n])], "b": None}) for n in range(3)]
    joined = join_states(made)
    assert joined.parts[0].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert joined.named["a"][0].tolist() == [0, 1, 2]
    apart = split_states(joined, 3)
    apart[0].parts[0].fill_(9)
    assert apart[2].parts[0].tolist() == [[2, 2]]
    assert joined.parts[0][0].tolist() == [0, 0]
    assert join_states(["x"]) == "x"
    with pytest.raises(ArgumentError, match="holds a str: make it of tensors"):
        join_states(["x", "y"])
    with pytest.raises(ArgumentError, match="holds a str"):
        split_states("x", 2)
