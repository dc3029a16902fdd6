"""Columns of events at the input and of requests at the output: in every encoder, streaming as at once."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.encoders import registry
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.event_columns import ColumnInputs
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.errors import ArgumentError, ConfigError
from recsys.jagged import SequenceBatch
from recsys.testing import check_encoder

ALL = ("sasrec", "bert4rec", "mamba")
V = 40
SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 8, "dropout": 0.2}
READS = {"event_columns": ("action", "device"), "request_columns": ("device",)}
COLUMNS = ColumnInputs(
    events=(("action", 3), ("dwell", 5), ("device", 4)), requests=(("device", 4),), digest="d"
)


def _encoder(name: str, **options: Any) -> SequenceEncoder:
    values = {**SMALL, **READS, **options}
    if name == "last-item":
        del values["d_ff"]
    config = encoder_config(name, values)
    encoder = build_encoder(name, V, config, columns=COLUMNS).eval()
    with torch.no_grad():
        for rows in (encoder.event_columns, encoder.request_columns):
            if rows is not None:
                rows.weight.normal_(generator=torch.Generator().manual_seed(1))
    return encoder


def _batch(lengths: list[int], seed: int = 0) -> SequenceBatch:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    codes = np.stack([rng.integers(0, size, n) for _, size in COLUMNS.events], axis=1)
    times = np.concatenate([1_000_000 + 50_000 * np.arange(length) for length in lengths])
    return SequenceBatch.from_lengths(rng.integers(0, V, n), lengths, times, times, event_codes=codes)


def _asked(n: int, seed: int = 5) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(1, 4, (n, 1)))


@pytest.mark.parametrize("name", ALL)
def test_without_columns_weights_and_states_are_those_of_before(name: str) -> None:
    plain = build_encoder(name, V, encoder_config(name, SMALL)).eval()
    reads = build_encoder(name, V, encoder_config(name, {**SMALL, **READS}), columns=COLUMNS).eval()
    kept = build_encoder(name, V, encoder_config(name, SMALL), columns=COLUMNS).eval()
    added = {"event_columns.weight", "request_columns.weight"}
    assert {n for n, _ in kept.named_parameters()} == {n for n, _ in plain.named_parameters()}
    assert {n for n, _ in reads.named_parameters()} - {n for n, _ in plain.named_parameters()} == added
    state = reads.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in plain.state_dict().items())
    # Rows of what is missing start at zero: nothing known changes nothing.
    assert reads.event_columns is not None
    assert reads.event_columns.weight.shape == (7, 16)
    batch = replace(_batch([4, 3]), event_codes=None)
    with torch.no_grad():
        assert torch.equal(plain(batch), reads(batch))
        assert torch.equal(plain(batch), kept(_batch([4, 3])))


@pytest.mark.parametrize("name", ALL)
def test_only_the_named_columns_are_read(name: str) -> None:
    encoder, batch = _encoder(name), _batch([5, 3])
    assert batch.event_codes is not None
    with torch.no_grad():
        before = encoder(batch)
        for column, read in ((0, True), (1, False), (2, True)):
            codes = batch.event_codes.clone()
            codes[:, column] = (codes[:, column] + 1) % COLUMNS.events[column][1]
            assert torch.equal(before, encoder(replace(batch, event_codes=codes))) != read


@pytest.mark.parametrize("name", ALL)
def test_states_at_once_are_what_is_defined(name: str) -> None:
    """The input is the item's vector and its columns' rows; the request's row is added to the state."""
    encoder, batch, asked = _encoder(name), _batch([5, 3, 1]), _asked(3)
    assert encoder.request_columns is not None
    with torch.no_grad():
        silent = encoder.user_state(batch)
        told = encoder.user_state(batch, context=asked)
    rows = encoder.request_columns.weight
    torch.testing.assert_close(told - silent, rows[asked[:, 0]] - rows[0])


@pytest.mark.parametrize("clock", ["off", "pool", "hours"])
@pytest.mark.parametrize("name", ALL)
def test_streams_give_what_encoding_at_once_gives(name: str, clock: str) -> None:
    encoder = _encoder(name, clock=clock)
    lengths = [7, 2, 5]
    batch, asked = _batch([n + 6 for n in lengths]), _asked(3)
    assert batch.event_codes is not None
    assert batch.local_times is not None
    starts = np.cumsum([0, *(n + 6 for n in lengths)])[:-1]
    window = encoder.history_length
    bounded = name != "mamba" and clock == "off"
    steps = 6 if bounded else window - max(lengths)  # a clock goes on summing where a window moves on

    def until(ends: np.ndarray) -> SequenceBatch:
        first = np.maximum(0, ends - window) if bounded else np.zeros_like(ends)
        flat = np.concatenate([s + np.arange(f, e) for s, f, e in zip(starts, first, ends, strict=True)])
        rows = torch.from_numpy(flat)
        assert batch.event_codes is not None
        return SequenceBatch.from_lengths(
            batch.items[rows].numpy(),
            ends - first,
            batch.timestamps[rows].numpy() if batch.timestamps is not None else None,
            batch.local_times[rows].numpy() if batch.local_times is not None else None,
            event_codes=batch.event_codes[rows].numpy(),
        )

    with torch.no_grad():
        ends = np.array(lengths)
        ends = np.minimum(ends, window)
        hidden, state = encoder.prefill(until(ends))
        torch.testing.assert_close(hidden, encoder.user_state(until(ends)), rtol=1e-4, atol=1e-5)
        for _ in range(steps):
            rows = torch.from_numpy(starts + ends)
            hidden, state = encoder.step(
                state,
                batch.items[rows],
                batch.timestamps[rows] if batch.timestamps is not None else None,
                local_times=batch.local_times[rows] if encoder.needs_local_times else None,
                columns=batch.event_codes[rows],
                context=asked,
            )
            ends = ends + 1
            whole = encoder.user_state(until(ends), context=asked)
            torch.testing.assert_close(hidden, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_step_of_which_nothing_is_told_is_one_of_missing_values(name: str) -> None:
    encoder, batch = _encoder(name), _batch([6, 6])
    first = torch.tensor([0, 1, 2, 3, 4, 6, 7, 8, 9, 10])
    assert batch.event_codes is not None
    begun = SequenceBatch.from_lengths(
        batch.items[first].numpy(), [5, 5], event_codes=batch.event_codes[first].numpy()
    )
    codes = batch.event_codes.clone()
    codes[[5, 11]] = 0
    with torch.no_grad():
        _, state = encoder.prefill(begun)
        hidden, _ = encoder.step(state, batch.items[[5, 11]])
        whole = encoder.user_state(replace(batch, event_codes=codes))
    torch.testing.assert_close(hidden, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_remembered_users_are_asked_in_any_context(name: str) -> None:
    encoder, batch, asked = _encoder(name, clock="pool"), _batch([5, 3]), _asked(2)
    local = torch.tensor([2_000_000, 2_040_000])
    with torch.no_grad():
        told = encoder.recall(encoder.remember(batch), local, asked)
        torch.testing.assert_close(told, encoder.user_state(batch, local_at=local, context=asked))


def test_every_row_that_is_read_learns() -> None:
    encoder, batch = _encoder("sasrec"), _batch([8, 8, 8])
    asked = torch.arange(24)[:, None] % 4
    encoder(replace(batch, request_codes=asked)).square().sum().backward()
    for rows in (encoder.event_columns, encoder.request_columns):
        assert rows is not None
        assert rows.weight.grad is not None
        assert (rows.weight.grad.abs().sum(1) > 0).all()


def test_what_cannot_be_read_is_refused() -> None:
    def config(**options: Any) -> Any:
        return encoder_config("sasrec", {**SMALL, **options})

    with pytest.raises(ConfigError, match=r"'acton' and the data keep action, dwell, device: name one"):
        build_encoder("sasrec", V, config(event_columns=("acton",)), columns=COLUMNS)
    with pytest.raises(ConfigError, match=r"keep none: prepare the log with event_columns=action,device"):
        build_encoder("sasrec", V, config(event_columns=("action", "device")))
    with pytest.raises(ConfigError, match=r"request_columns names .action. and the data keep device"):
        build_encoder("sasrec", V, config(request_columns=("action",)), columns=COLUMNS)
    with pytest.raises(ConfigError, match=r"encoder\.event_columns.* each name once"):
        config(event_columns=("action", "action"))
    with pytest.raises(ConfigError, match=r"encoder\.column_dropout = 1"):
        config(column_dropout=1.0)
    encoder, batch = _encoder("sasrec"), _batch([3, 2])
    assert batch.event_codes is not None
    with pytest.raises(ArgumentError, match=r"codes of shape \(5, 2\): give 5 rows of 3 columns"):
        encoder(replace(batch, event_codes=batch.event_codes[:, :2]))
    with pytest.raises(ArgumentError, match="codes of 3 requests for 2 sequences"):
        encoder.user_state(batch, context=_asked(3))
    assert config(event_columns="[action, device]").event_columns == ("action", "device")
    assert config(event_columns="").event_columns == ()


def test_an_encoder_of_ones_own_reads_request_columns_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    runpy.run_path(str(Path(__file__).parent / "own_encoder.py"))
    check_encoder("last-item")
    encoder = _encoder("last-item", event_columns=())
    batch, asked = _batch([3, 2]), _asked(2)
    with torch.no_grad():
        assert not torch.equal(encoder.user_state(batch), encoder.user_state(batch, context=asked))
    with pytest.raises(ConfigError, match="LastItem reads no columns of events"):
        _encoder("last-item")
