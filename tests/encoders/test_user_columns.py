"""Columns of users at the first event and at the output: in every encoder, streaming as at once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.encoders import registry
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.event_columns import ColumnInputs
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.errors import ConfigError
from recsys.jagged import SequenceBatch

ALL = ("sasrec", "bert4rec", "mamba")
V = 40
SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 8, "dropout": 0.2}
READS = {"user_columns": ("region", "age")}
COLUMNS = ColumnInputs(
    events=(("action", 3),),
    requests=(("device", 4),),
    digest="d",
    users=(("age", 5), ("job", 9), ("region", 3)),
)
SIZES = np.array([5, 9, 3])


def _encoder(name: str, **options: Any) -> SequenceEncoder:
    encoder = build_encoder(
        name, V, encoder_config(name, {**SMALL, **READS, **options}), columns=COLUMNS
    ).eval()
    with torch.no_grad():
        for rows in (encoder.event_columns, encoder.request_columns, encoder.user_input, encoder.user_output):
            if rows is not None:
                rows.weight.normal_(generator=torch.Generator().manual_seed(1))
    return encoder


def _users(n: int) -> np.ndarray:
    return np.random.default_rng(9).integers(1, SIZES, (n, 3))


def _batch(lengths: list[int], users: np.ndarray) -> SequenceBatch:
    rng = np.random.default_rng(0)
    n = sum(lengths)
    codes = np.concatenate([rng.integers(0, 3, (n, 1)), np.repeat(users, lengths, axis=0)], axis=1)
    times = np.concatenate([1_000_000 + 50_000 * np.arange(length) for length in lengths])
    return SequenceBatch.from_lengths(rng.integers(0, V, n), lengths, times, times, event_codes=codes)


def _asked(users: np.ndarray) -> Tensor:
    devices = np.random.default_rng(5).integers(1, 4, (len(users), 1))
    return torch.from_numpy(np.concatenate([devices, users], axis=1))


@pytest.mark.parametrize("name", ALL)
def test_without_columns_weights_and_states_are_those_of_before(name: str) -> None:
    plain = build_encoder(name, V, encoder_config(name, SMALL)).eval()
    reads = build_encoder(name, V, encoder_config(name, {**SMALL, **READS}), columns=COLUMNS).eval()
    added = {"user_input.weight", "user_output.weight"}
    assert {n for n, _ in reads.named_parameters()} - {n for n, _ in plain.named_parameters()} == added
    state = reads.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in plain.state_dict().items())
    batch = _batch([4, 3], np.zeros((2, 3), dtype=np.int64))
    with torch.no_grad():  # rows of what is missing start at zero
        assert torch.equal(plain(batch), reads(batch))


@pytest.mark.parametrize("name", ALL)
def test_the_first_event_and_the_answer_alone_are_read(name: str) -> None:
    users = _users(2)
    encoder, batch, asked = _encoder(name), _batch([5, 3], users), _asked(users)
    assert batch.event_codes is not None
    assert encoder.user_output is not None
    with torch.no_grad():
        before = encoder.user_state(batch, context=asked)
        for row, read in ((0, True), (5, True), (1, False), (4, False), (7, False)):
            codes = batch.event_codes.clone()
            codes[row, 1:] = 0
            assert (
                torch.equal(before, encoder.user_state(replace(batch, event_codes=codes), context=asked))
                != read
            )
        codes = batch.event_codes.clone()
        codes[:, [0, 2]] = 0  # the action and the job: columns that are not read
        assert torch.equal(before, encoder.user_state(replace(batch, event_codes=codes), context=asked))
        silent = encoder.user_state(batch)
        added = encoder.user_output.weight
        # Rows of the region, then of the age, each of whose first is that of a missing value.
        rows = added[users[:, 2]] - added[0] + added[3 + users[:, 0]] - added[3]
        torch.testing.assert_close(before - silent, rows)


@pytest.mark.parametrize("clock", ["off", "pool", "hours"])
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_streams_give_what_encoding_at_once_gives(name: str, clock: str, more: bool) -> None:
    others = {"event_columns": ("action",), "request_columns": ("device",)} if more else {}
    encoder = _encoder(name, clock=clock, **others)
    users = _users(3)
    asked = _asked(users)
    longest = 12 if name != "mamba" and clock == "off" else encoder.history_length
    batch = _batch([longest] * 3, users)
    assert batch.event_codes is not None
    assert batch.local_times is not None
    assert batch.timestamps is not None
    state = encoder.initial_state(3)
    with torch.no_grad():
        for step in range(longest):
            rows = torch.arange(3) * longest + step
            hidden, state = encoder.step(
                state,
                batch.items[rows],
                batch.timestamps[rows],
                local_times=batch.local_times[rows] if encoder.needs_local_times else None,
                columns=batch.event_codes[rows],
                context=asked,
            )
            first = max(0, step + 1 - encoder.history_length)
            span = torch.cat(
                [torch.arange(3)[user] * longest + torch.arange(first, step + 1) for user in range(3)]
            )
            whole = SequenceBatch.from_lengths(
                batch.items[span].numpy(),
                [step + 1 - first] * 3,
                batch.timestamps[span].numpy(),
                batch.local_times[span].numpy(),
                event_codes=batch.event_codes[span].numpy(),
            )
            wanted = encoder.user_state(whole, context=asked)
            torch.testing.assert_close(hidden, wanted, rtol=1e-4, atol=1e-5)
            if step == 4:  # a stream that begins with a history goes on alike
                begun, state = encoder.prefill(whole, context=asked)
                torch.testing.assert_close(begun, wanted, rtol=1e-4, atol=1e-5)


def test_every_row_that_is_read_learns() -> None:
    users = _users(3)
    encoder = _encoder("sasrec")
    batch = replace(_batch([8, 8, 8], users), request_codes=_asked(users).repeat_interleave(8, 0))
    encoder(batch).square().sum().backward()
    for rows in (encoder.user_input, encoder.user_output):
        assert rows is not None
        assert rows.weight.grad is not None
        moved = rows.weight.grad.abs().sum(1) > 0
        read = np.zeros(8, dtype=bool)
        read[np.concatenate([users[:, 2], 3 + users[:, 0]])] = True
        assert moved.tolist() == read.tolist()


def test_what_the_data_lack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"user_columns names 'age' and the data keep none: .*user_columns=age"
    ):
        build_encoder("sasrec", V, encoder_config("sasrec", {**SMALL, "user_columns": ("age",)}))
    kind = registry.registration("sasrec").encoder
    monkeypatch.setattr(kind, "reads_users", False)
    with pytest.raises(ConfigError, match="SASRec reads no columns of users; leave it out"):
        _encoder("sasrec")
