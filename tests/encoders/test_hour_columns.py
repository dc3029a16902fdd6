"""The hour of events and of requests as columns, of local times alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.datasets.preparing import event_options
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.event_columns import LOCAL_HOUR, hour_codes
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch
from recsys.training.objectives import cloze, next_item

ALL = ("sasrec", "bert4rec", "mamba")
V = 40
SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 8, "dropout": 0.0}
EVENT = {"event_columns": (LOCAL_HOUR,)}
REQUEST = {"request_columns": (LOCAL_HOUR,)}
HOUR_S = 3600


def _encoder(name: str, **options: Any) -> SequenceEncoder:
    encoder = build_encoder(name, V, encoder_config(name, {**SMALL, **options})).eval()
    with torch.no_grad():
        for rows in (encoder.hour_input, encoder.hour_output):
            if rows is not None:
                rows.weight.normal_(generator=torch.Generator().manual_seed(1))
    return encoder


def _batch(lengths: list[int]) -> SequenceBatch:
    rng = np.random.default_rng(0)
    n = sum(lengths)
    times = np.concatenate([1_000_000 + 5 * HOUR_S * np.arange(length) for length in lengths])
    return SequenceBatch.from_lengths(rng.integers(0, V, n), lengths, times, times)


def test_hours_are_codes_and_no_time_is_missing() -> None:
    assert LOCAL_HOUR == event_options.LOCAL_HOUR
    found = hour_codes(torch.tensor([0, 3599, 3600, 86_399, 86_400, -1]))
    assert found is not None
    assert found[:, 0].tolist() == [1, 1, 2, 24, 1, 24]
    assert hour_codes(None) is None
    assert not _encoder("sasrec").needs_local_times
    for options in (EVENT, REQUEST):
        assert _encoder("sasrec", **options).needs_local_times
        assert _encoder("sasrec", **options).columns_digest is None


@pytest.mark.parametrize("name", ALL)
def test_states_are_what_is_defined(name: str) -> None:
    batch = _batch([5, 3])
    plain = build_encoder(name, V, encoder_config(name, SMALL)).eval()
    both = build_encoder(name, V, encoder_config(name, {**SMALL, **EVENT, **REQUEST})).eval()
    state = both.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in plain.state_dict().items())
    asked = torch.tensor([7 * HOUR_S, 23 * HOUR_S + 60]) + 86_400 * 20
    with torch.no_grad():
        encoder = _encoder(name, **REQUEST)
        assert encoder.hour_output is not None
        rows = encoder.hour_output.weight
        added = encoder.user_state(batch, local_at=asked) - plain.user_state(batch)
        torch.testing.assert_close(added, rows[[8, 24]])
        # Asked at the time of the last event where nothing is said.
        last = batch.last_rows()
        assert batch.local_times is not None
        own = hour_codes(batch.local_times[last])
        assert own is not None
        torch.testing.assert_close(encoder.user_state(batch) - plain.user_state(batch), rows[own[:, 0]])


@pytest.mark.parametrize("name", ALL)
def test_the_hour_of_what_is_predicted_is_read_as_the_requests_alone(name: str) -> None:
    batch = _batch([6, 4])
    assert batch.local_times is not None

    def states(encoder: SequenceEncoder, local: Tensor) -> Tensor:
        given = replace(batch, local_times=local, query_times=local)
        if encoder.causal:
            task = next_item(given)
        else:
            options: dict[str, Any] = {"mask_probability": 0.3, "last_mask_probability": 1.0}
            task = cloze(given, V, np.random.default_rng(0), **options)
        with torch.no_grad():
            found: Tensor = encoder(task.batch)
        return found[[4, 7]] if task.rows is None else found[task.rows]

    moved = batch.local_times.clone()
    moved[[5, 9]] += 3 * HOUR_S  # the targets: the last event of each
    for options, read in ((EVENT, False), (REQUEST, True)):
        encoder = _encoder(name, **options)
        assert torch.equal(states(encoder, batch.local_times), states(encoder, moved)) != read
    earlier = batch.local_times.clone()
    earlier[[4, 8]] += 3 * HOUR_S
    encoder = _encoder(name, **EVENT)
    assert not torch.equal(states(encoder, batch.local_times), states(encoder, earlier))


@pytest.mark.parametrize("clock", ["off", "pool", "hours"])
@pytest.mark.parametrize("name", ALL)
def test_streams_give_what_encoding_at_once_gives(name: str, clock: str) -> None:
    encoder = _encoder(name, clock=clock, **EVENT, **REQUEST)
    longest = 12 if name != "mamba" and clock != "pool" else encoder.history_length
    batch = _batch([longest] * 3)
    assert batch.local_times is not None
    assert batch.timestamps is not None
    asked = batch.local_times[-1] + torch.tensor([3, 9, 30]) * HOUR_S
    state = encoder.initial_state(3)
    with torch.no_grad():
        for step in range(longest):
            rows = torch.arange(3) * longest + step
            event = (state, batch.items[rows], batch.timestamps[rows])
            first = max(0, step + 1 - encoder.history_length)
            span = torch.cat([user * longest + torch.arange(first, step + 1) for user in range(3)])
            times = batch.timestamps[span].numpy()
            items = batch.items[span].numpy()
            whole = SequenceBatch.from_lengths(items, [step + 1 - first] * 3, times, times)
            # Which hour is asked for changes nothing of the state that goes on.
            at = None if step % 2 else asked
            hidden, state = encoder.step(*event, local_times=batch.local_times[rows], local_at=at)
            wanted = encoder.user_state(whole, local_at=at)
            torch.testing.assert_close(hidden, wanted, rtol=1e-4, atol=1e-5)
            if step == 4:
                begun, state = encoder.prefill(whole)
                torch.testing.assert_close(begun, encoder.user_state(whole), rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="local time of every event"):
        encoder.step(encoder.initial_state(1), torch.tensor([1]))


@pytest.mark.parametrize("name", ALL)
def test_remembered_users_are_asked_at_any_hour(name: str) -> None:
    encoder, batch = _encoder(name, clock="pool", **EVENT, **REQUEST), _batch([5, 3])
    local = torch.tensor([2_000_000, 2_040_000])
    with torch.no_grad():
        told = encoder.recall(encoder.remember(batch), local)
        torch.testing.assert_close(told, encoder.user_state(batch, local_at=local))
        torch.testing.assert_close(encoder.recall(encoder.remember(batch)), encoder.user_state(batch))
