"""Query vectors of a user with an interest clock: at the hour of the request, without it, and centres."""

import numpy as np
import pytest
import torch

from recsys.answering.interests import interest_states
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.inference import encode_histories
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch

HOUR = 3600
SMALL: dict[str, object] = {"d_model": 16, "n_layers": 1, "max_length": 32, "clock": "pool"}


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_a_clock_gives_the_state_at_the_requests_hour_and_the_state_without_it(name: str) -> None:
    encoder = build_encoder(name, 40, encoder_config(name, SMALL)).eval()
    rng = np.random.default_rng(0)
    lengths = np.array([7, 1, 12])
    items = rng.integers(0, 40, lengths.sum())
    local = np.concatenate([np.cumsum(rng.integers(1, 40, n)) for n in lengths]) * HOUR + 1_700_000_000
    ends = np.cumsum(lengths)
    starts = ends - lengths
    asked = local[ends - 1] + np.array([5, 9, 13]) * HOUR

    def queries(count: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return interest_states(
            encoder, items, local, starts, ends, count, local_times=local, at=at, local_at=at
        )

    found, offsets = queries(2, asked)
    assert offsets.tolist() == [0, 2, 4, 6]
    batch = SequenceBatch.from_lengths(items, lengths, local, local)
    with torch.inference_mode():
        memory = encoder.remember(batch)
        at_the_hour = encoder.recall(memory, torch.from_numpy(asked))
    np.testing.assert_allclose(found[0::2], at_the_hour.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1::2], memory.hidden.numpy(), rtol=1e-4, atol=1e-5)
    assert np.abs(found[0::2] - found[1::2]).max() > 1e-3
    # The hour moves the first query and leaves the second alone.
    later, _ = queries(2, asked + 6 * HOUR)
    assert np.abs(later[0::2] - found[0::2]).max() > 1e-4
    np.testing.assert_array_equal(later[1::2], found[1::2])
    more, offsets = queries(4, asked)
    assert offsets.tolist() == [0, 4, 6, 10]
    np.testing.assert_allclose(more[[0, 1]], found[[0, 1]], rtol=1e-4, atol=1e-5)
    one, offsets = queries(1, asked)
    assert offsets.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(one, found[0::2], rtol=1e-4, atol=1e-5)


def test_an_encoder_without_a_clock_has_no_state_without_it() -> None:
    encoder = build_encoder("sasrec", 40, encoder_config("sasrec", {**SMALL, "clock": "off"})).eval()
    items, starts, ends = np.arange(6), np.array([0]), np.array([6])
    _, offsets = interest_states(encoder, items, None, starts, ends, 3)
    assert offsets.tolist() == [0, 3]
    with pytest.raises(ArgumentError, match="no clock"):
        encode_histories(encoder, items, None, starts, ends, clock=False)
