"""One contract for all encoders, built in and to come."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.encoders import (
    build_encoder,
    encoder_config,
    encoder_name,
    preset,
    register_encoder,
    registration,
    registry,
)
from recsys.encoders.base import EncoderConfig, SequenceEncoder
from recsys.encoders.bert4rec import BERT4Rec
from recsys.encoders.registry import changed_fields
from recsys.errors import ArgumentError, ConfigError
from recsys.jagged import SequenceBatch
from recsys.testing import encoder_checks
from recsys.testing.subject import SMALL, Subject, V, batch_of, sequences, times_of

VARIANTS: list[tuple[str, dict[str, object]]] = [
    ("sasrec", {}),
    ("sasrec", {"block": "prenorm", "positions": "learned"}),
    ("sasrec", {"block": "postnorm", "positions": "none"}),
    ("sasrec", {"block": "sasrec", "positions": "reversed", "n_heads": 1, "scale_embedding": True}),
    ("sasrec", {"time_bias": 60, "relative_positions": 9}),
    ("sasrec", {"time_bias": 24, "relative_positions": 40, "block": "sasrec", "positions": "reversed"}),
    ("bert4rec", {}),
    ("bert4rec", {"time_bias": 60, "relative_positions": 9}),
    ("bert4rec", {"block": "postnorm", "positions": "reversed"}),
    ("bert4rec", {"ends": "plain", "causal_probability": 0.5}),
    ("mamba", {}),
    ("mamba", {"block": "mamba4rec", "dt_init": "zero", "n_layers": 1}),
    ("mamba", {"block": "mamba4rec", "d_conv": 2, "d_state": 5}),
    ("sasrec", {"clock": "pool"}),
    ("sasrec", {"clock": "hours", "positions": "reversed", "time_bias": 24}),
    ("bert4rec", {"clock": "pool", "clock_half_life": 0}),
    ("bert4rec", {"clock": "hours"}),
    ("mamba", {"clock": "pool", "clock_half_life": 3}),
    ("mamba", {"clock": "hours", "n_layers": 1}),
    ("sasrec", {"item_hashes": 2, "item_buckets": 25}),
    ("bert4rec", {"item_hashes": 3, "item_buckets": 25}),
    ("mamba", {"item_hashes": 2, "item_buckets": 25}),
    ("sasrec", {"tie_items": False, "norm": "rms", "feed_forward": "gelu"}),
    ("sasrec", {"norm": "rms", "block": "prenorm", "feed_forward": "swiglu"}),
    ("bert4rec", {"tie_items": False, "norm": "rms", "block": "postnorm", "feed_forward": "swiglu"}),
    ("mamba", {"tie_items": False, "norm": "rms", "feed_forward": "swiglu"}),
    ("mamba", {"tie_items": False, "item_hashes": 2, "item_buckets": 25}),
    ("sasrec", {"item_sum": True}),
    ("sasrec", {"item_sum": True, "clock": "pool", "positions": "reversed"}),
    ("bert4rec", {"item_sum": True, "clock": "hours"}),
    ("mamba", {"item_sum": True, "item_hashes": 2, "item_buckets": 25}),
]
IDS = ["-".join([name, *map(str, options.values())]) for name, options in VARIANTS]


def _encoder(name: str, options: dict[str, object], seed: int = 0) -> SequenceEncoder:
    return Subject.of(name, options).build(seed)


def _close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


CHECKS = [check.name for check in encoder_checks("sasrec")]


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
def test_the_contract_of_encoders(variant: tuple[str, dict[str, object]], name: str) -> None:
    encoder, options = variant
    (check,) = (check for check in encoder_checks(encoder, options) if check.name == name)
    check()


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_a_sequence_longer_than_the_window_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="25 events exceeds max_length = 24"):
        _encoder(name, {})(SequenceBatch.from_sequences(sequences([25])))


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_times_matter_to_a_time_bias_alone(name: str) -> None:
    users = sequences([9, 4])
    shifted = [times_of(s) + 1000 for s in users]
    stretched = [times_of(s) * 3 for s in users]
    variants: list[tuple[dict[str, object], bool]] = [
        ({}, False),
        ({"relative_positions": 5}, False),
        ({"time_bias": 64}, True),
    ]
    for options, matters in variants:
        encoder = _encoder(name, options)
        assert encoder.needs_timestamps == matters
        with torch.no_grad():
            first, moved, slower = (
                encoder(SequenceBatch.from_sequences(users, times))
                for times in ([times_of(s) for s in users], shifted, stretched)
            )
        assert torch.equal(first, moved)
        assert torch.equal(first, slower) != matters


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_relative_positions_tell_orders_apart(name: str) -> None:
    (sequence,) = sequences([9])
    turned = [*sequence[:6], sequence[7], sequence[6], sequence[8]]
    for places, same in ((0, True), (9, False)):
        encoder = _encoder(name, {"positions": "none", "relative_positions": places, "n_layers": 1})
        with torch.no_grad():
            first, other = (encoder.user_state(SequenceBatch.from_sequences([s])) for s in (sequence, turned))
        assert torch.allclose(first, other, atol=1e-6) == same


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_tables_start_at_zero_and_change_nothing_there(name: str) -> None:
    batch = batch_of(sequences([9, 4]))
    plain, biased = (
        build_encoder(name, V, encoder_config(name, {**SMALL, **options})).eval()
        for options in ({}, {"time_bias": 64, "relative_positions": 9})
    )
    tables = {n: p for n, p in biased.named_parameters() if ".tables." in n}
    assert sorted({n.rpartition(".")[2] for n in tables}) == ["position_table", "time_table"]
    assert len(tables) == 4
    assert not any(p.any() for p in tables.values())
    with torch.no_grad():
        _close(plain(batch), biased(batch))


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_a_time_bias_without_times_is_refused_in_one_line(name: str) -> None:
    encoder = _encoder(name, {"time_bias": 64})
    message = "encoder.time_bias = 64 needs the time of every event"
    with pytest.raises(ArgumentError, match=message):
        encoder(SequenceBatch.from_sequences([[1, 2]]))
    with pytest.raises(ArgumentError, match=message):
        encoder.step(encoder.initial_state(1), torch.tensor([1]))


def test_the_mask_has_the_last_events_time_unless_told_when() -> None:
    encoder = _encoder("bert4rec", {"time_bias": 100})
    assert isinstance(encoder, BERT4Rec)
    batch = SequenceBatch.from_sequences([[1, 2], []], [[100, 5000], []])
    with torch.no_grad():
        left, last, later = (
            encoder.user_state(batch, at=at)
            for at in (None, torch.tensor([5000, 77]), torch.tensor([90_000, 77]))
        )
    assert torch.equal(left, last)
    assert not torch.equal(left[0], later[0])
    assert torch.equal(left[1], later[1])


def test_a_stream_without_a_time_bias_keeps_no_times() -> None:
    for name in ("sasrec", "bert4rec"):
        assert _encoder(name, {}).initial_state(3).timestamps.shape == (3, 0)


def test_bert4rec_answers_an_empty_history() -> None:
    encoder = _encoder("bert4rec", {})
    with torch.no_grad():
        states = encoder.user_state(SequenceBatch.from_sequences([[], [1, 2]]))
    assert states.shape == (2, 32)
    assert encoder.history_length == 23


def test_bert4rec_looks_back_alone_in_the_stated_share_of_training_steps() -> None:
    options: dict[str, object] = {"dropout": 0.0, "positions": "none", "causal_probability": 0.3}
    encoder = _encoder("bert4rec", options)
    (sequence,) = sequences([6])
    changed = [*sequence[:-1], (sequence[-1] + 1) % V]

    def sees_the_last(seed: int | None) -> bool:
        states = []
        for items in (sequence, changed):
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            states.append(encoder(SequenceBatch.from_sequences([items]), generator=generator)[:-1])
        return not torch.equal(*states)

    with torch.no_grad():
        blind = [not sees_the_last(seed) for seed in range(500)]
        assert sees_the_last(None)
    # 500 draws at 0.3: four standard deviations are 0.082.
    assert abs(np.mean(blind) - 0.3) < 0.082


def test_mamba_bears_the_names_and_shapes_of_mamba_ssm() -> None:
    mixer = _encoder("mamba", {"d_model": 64, "d_state": 16}).get_submodule("blocks.0.mixer")
    shapes = {name: tuple(p.shape) for name, p in mixer.named_parameters()}
    assert shapes == {
        "A_log": (128, 16),
        "D": (128,),
        "in_proj.weight": (256, 64),
        "conv1d.weight": (128, 1, 4),
        "conv1d.bias": (128,),
        "x_proj.weight": (36, 128),
        "dt_proj.weight": (128, 4),
        "dt_proj.bias": (128,),
        "out_proj.weight": (64, 128),
    }


def test_mamba_hands_the_batchs_work_list_to_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.kernels.scan import selective_scan

    batch = SequenceBatch.from_sequences(sequences([3, 5]))
    work, seen = object(), []

    def scan(*args: Any, schedule: Any, **options: Any) -> Any:
        seen.append(schedule)
        return selective_scan(*args, **options)

    monkeypatch.setattr(SequenceBatch, "scan_schedule", work)
    monkeypatch.setattr("recsys.encoders.mamba.selective_scan", scan)
    _encoder("mamba", {})(batch)
    assert seen == [work, work]


def test_mamba_hands_the_events_places_to_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.kernels.conv import causal_conv

    batch = SequenceBatch.from_sequences(sequences([3, 5]))
    places, seen = batch.positions(), []

    def conv(*args: Any, positions: Any, **options: Any) -> Any:
        seen.append(positions)
        return causal_conv(*args, **options)

    monkeypatch.setattr(SequenceBatch, "places", places)
    monkeypatch.setattr("recsys.encoders.mamba.causal_conv", conv)
    _encoder("mamba", {})(batch)
    assert len(seen) == 2
    assert all(given is places for given in seen)


def test_mamba4rec_has_the_published_number_of_parameters() -> None:
    # 290,944 for 3,416 items and a padding row, by the log that SIGMA's authors published.
    values = {**preset("mamba", "paper")["encoder"], "d_model": 64}
    encoder = build_encoder("mamba", 3417, encoder_config("mamba", values))
    assert sum(p.numel() for p in encoder.parameters()) == 290_944


def test_mamba_starts_with_step_sizes_in_the_stated_range() -> None:
    encoder = build_encoder("mamba", V, encoder_config("mamba", {}))
    bias = encoder.get_parameter("blocks.0.mixer.dt_proj.bias").detach()
    dt = torch.nn.functional.softplus(bias)
    assert 0.00099 <= float(dt.min()) < float(dt.max()) <= 0.1001


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
@pytest.mark.parametrize("which", ["tuned", "paper"])
def test_every_preset_builds(name: str, which: str) -> None:
    encoder = build_encoder(name, V, encoder_config(name, preset(name, which).get("encoder", {})))
    assert encoder(SequenceBatch.from_sequences([[1, 2, 3]])).shape[0] == 3


def test_a_hashed_item_is_the_sum_of_rows_of_a_small_table() -> None:
    encoder = _encoder("bert4rec", {"item_hashes": 3, "item_buckets": 25})
    table = encoder.get_parameter("item_embedding.weight")
    assert table.shape == (25 + 1, 32)  # the mask token has a row of its own
    with torch.no_grad():
        weight = encoder.item_weight
        assert torch.equal(weight, encoder.item_vectors())
        embedded = encoder.item_embedding(torch.tensor([[3, V - 1, V]]))
    assert torch.equal(embedded[0, :2], weight[[3, V - 1]])
    torch.testing.assert_close(embedded[0, 2], 3 * table[25].detach())


def test_hashed_items_start_as_wide_as_others() -> None:
    for hashes in (1, 4):
        config = encoder_config("sasrec", {"d_model": 64, "item_hashes": hashes, "item_buckets": 500})
        weight = build_encoder("sasrec", 3000, config).item_vectors()
        assert float(weight.std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    "options", [{"item_hashes": 17}, {"item_hashes": -1}, {"item_hashes": 2, "item_buckets": 0}]
)
def test_hashing_out_of_range_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="encoder.item_"):
        encoder_config("sasrec", options)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown encoder 'sasrek'; did you mean 'sasrec'"):
        registration("sasrek")
    with pytest.raises(ConfigError, match="sasrec has no preset 'tunned'; did you mean 'tuned'"):
        preset("sasrec", "tunned")
    with pytest.raises(ConfigError, match="SASRecConfig"):
        build_encoder("sasrec", V, encoder_config("mamba", {}))


def test_a_third_party_encoder_joins_with_one_decorator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @register_encoder("last-item", config=EncoderConfig)
    class LastItem(SequenceEncoder):
        causal = True

        def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
            return self.item_embedding(batch.items)  # type: ignore[no-any-return]

        def encode_start(self, n: int) -> None:
            return None

        def encode_step(
            self,
            state: Any,
            items: Tensor,
            timestamps: Tensor | None = None,
            local_times: Tensor | None = None,
            asked: Tensor | None = None,
        ) -> tuple[Tensor, Any]:
            return self.item_embedding(items), None

    encoder = build_encoder("last-item", V, encoder_config("last-item", {"d_model": 8}))
    assert encoder_name(encoder) == "last-item"
    assert encoder.user_state(SequenceBatch.from_sequences([[3], [4, 5]])).shape == (2, 8)
    with pytest.raises(ConfigError, match="is taken by"):
        register_encoder("last-item", config=EncoderConfig)(type("Other", (LastItem,), {}))


def test_changed_fields_are_those_that_differ() -> None:
    assert changed_fields(encoder_config("sasrec", {"d_model": 32})) == {"d_model": 32}


def test_blocks_with_a_feed_forward_layer_of_their_own_take_no_other() -> None:
    with pytest.raises(ConfigError, match="encoder.feed_forward = 'swiglu'"):
        encoder_config("sasrec", {"block": "sasrec", "feed_forward": "swiglu"})


def test_rms_norm_and_swiglu_are_as_defined() -> None:
    encoder = _encoder("sasrec", {"norm": "rms", "block": "prenorm", "feed_forward": "swiglu"})
    block: Any = encoder.blocks[0]  # type: ignore[index]
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    _close(block.attention_norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt())
    up, down = block.feed_forward.up.weight, block.feed_forward.down.weight
    half = len(up) // 2
    gate = x @ up[half:].T
    _close(block.feed_forward(x), (gate / (1 + torch.exp(-gate)) * (x @ up[:half].T)) @ down.T, 1e-4)
