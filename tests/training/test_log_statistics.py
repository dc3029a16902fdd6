"""The statistics that settings are chosen by, and what the presets make of them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.config import to_dict
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import registry
from recsys.encoders.registry import choices_for, encoder_config, preset, register_encoder, registration
from recsys.encoders.suited import Choice, LogStatistics
from recsys.recommender import Recommender
from recsys.training import losses
from recsys.training.log_statistics import log_statistics

BUILT_IN = ["sasrec", "bert4rec", "mamba"]


def _frame(histories: list[list[int]]) -> pl.DataFrame:
    rows = [(user, item, at) for user, items in enumerate(histories) for at, item in enumerate(items)]
    return pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")


@pytest.mark.parametrize("shards", [None, 2])
def test_training_events_alone_are_counted(shards: int | None, tmp_path: Path) -> None:
    # The last two events of each user are for validation and test.
    log = _frame([[0, 1, 0, 1, 2, 3], [0, 0, 0, 4, 5], [1, 2, 5]])
    found = log_statistics(prepare(log, tmp_path / "data", shards=shards))
    if shards is None:
        assert found == LogStatistics(users=3, items=2, events=8, repeats=0.5)
    assert (found.users, found.items, found.events) == (3, 2, 8)
    assert 0 <= found.repeats < 1
    assert (found.per_item, found.per_user) == (4.0, 8 / 3)


def _visits(hour: int) -> pl.DataFrame:
    """Users who come back to two places day by day."""
    rows = [(user, day % 2, day * 86_400 + hour * 3600 * (day + 1)) for user in range(6) for day in range(9)]
    return pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")


@pytest.mark.parametrize("hour", [0, 1])
def test_days_without_hours_are_no_clock(hour: int, tmp_path: Path) -> None:
    # A time zone is known of both, and hours of one.
    found = log_statistics(prepare(_visits(hour), tmp_path / "data", time_zone="UTC"))
    assert (found.repeats > 0.5, found.zoned) == (True, hour > 0)


def _chosen(name: str, log: LogStatistics) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for choice in choices_for(name, "tuned", log):
        settings |= {**choice.encoder, **choice.training}
    return settings


DENSE = LogStatistics(users=6040, items=3416, events=987_531)
SPARSE = LogStatistics(users=22_363, items=12_092, events=153_776)
LEARNED_ON = LogStatistics(users=943, items=1678, events=98_114)


@pytest.mark.parametrize("name", BUILT_IN)
def test_logs_like_those_that_the_rules_were_learned_on_get_what_was_best_there(name: str) -> None:
    assert _chosen(name, LEARNED_ON) == {}
    assert _chosen(name, SPARSE)["max_length"] == 50
    assert ("item_sum" in _chosen(name, SPARSE)) == (name == "sasrec")
    assert "d_model" not in _chosen(name, SPARSE)
    assert {"d_model": 128, "label_smoothing": 0.0, "batch_events": 16384}.items() <= _chosen(
        name, DENSE
    ).items()


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize(
    "log",
    [
        LogStatistics(users=0, items=0, events=0),
        LogStatistics(users=5000, items=5000, events=5000),
        LogStatistics(users=900, items=5, events=30_000, repeats=0.9),
        LogStatistics(users=3, items=900, events=30_000, repeats=0.95),
        LogStatistics(users=10**9, items=10**8, events=10**11),
    ],
    ids=["nothing", "one event an item", "five items", "ten thousand events a user", "everybody"],
)
def test_logs_outside_of_what_was_looked_at_get_sane_settings(name: str, log: LogStatistics) -> None:
    parts = {part: dict(preset(name, "tuned").get(part, {})) for part in ("encoder", "training")}
    for choice in choices_for(name, "tuned", log):
        parts["encoder"] |= choice.encoder
        parts["training"] |= choice.training
    config = encoder_config(name, parts["encoder"])
    assert 50 <= config.max_length <= 200
    assert 0.2 <= config.dropout <= 0.5
    assert 64 <= parts["training"]["batch_events"] <= 16384
    if log.events:
        assert log.events / parts["training"]["batch_events"] >= 10


@pytest.mark.parametrize("name", BUILT_IN)
def test_where_users_come_back_all_visits_count_and_their_hours_if_known(name: str) -> None:
    log: dict[str, Any] = {"users": 1083, "items": 5081, "events": 118_000}
    assert "repeat_by" not in _chosen(name, LogStatistics(**log, repeats=0.1, zoned=True))
    assert _chosen(name, LogStatistics(**log, repeats=0.7)) == {"repeat_by": "count"}
    hours = {"clock": "pool", "repeat_by": "clock"}
    assert _chosen(name, LogStatistics(**log, repeats=0.7, zoned=True)) == hours


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_large_catalog_of_few_events_gets_the_full_softmax(name: str) -> None:
    assert _chosen(name, LogStatistics(users=40_226, items=49_438, events=273_510))["loss"] == "full"
    for items, events in ((49_438, 4_000_000), (30_000, 273_510), (300_000, 273_510)):
        assert "loss" not in _chosen(name, LogStatistics(users=40_226, items=items, events=events))


def test_the_full_softmax_that_was_chosen_keeps_the_repeat_bias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    log = _frame([rng.integers(0, 30, 8).tolist() for _ in range(40)])
    monkeypatch.setitem(losses.FULL_LOSS_ITEMS, "cpu", 20)
    lines: list[str] = []
    model = Recommender(
        "sasrec", encoder_options={"d_model": 16, "n_layers": 1}, training_options={"epochs": 1}
    )
    model.fit(log, out=tmp_path / "sampled", notify=lines.append)
    assert model.encoder_.config.repeat_bias == 0
    monkeypatch.setattr("recsys.encoders.suited.MANY_ITEMS", 20)
    model.fit(log, out=tmp_path / "full", notify=lines.append)
    assert model.encoder_.config.repeat_bias == 8
    assert "Chosen for 30 items and 240 training events: training.loss = full" in lines
    said: dict[str, Any]
    for said in ({"negatives": 8}, {"negative_sampling": "popularity"}):  # who speaks of samples gets them
        assert Recommender("sasrec", training_options=said).configs(model.store_)[1].loss == "auto"
    assert Recommender("sasrec", encoder_options={"item_hashes": 2}).configs(model.store_)[1].loss == "auto"
    assert Recommender("sasrec").configs(model.store_)[1].loss == "full"


@pytest.mark.parametrize("name", BUILT_IN)
def test_without_a_repeat_bias_nothing_is_chosen_for_it(name: str, tmp_path: Path) -> None:
    store = prepare(_frame([[0, 1] * 4, [2, 0] * 4, [1, 2] * 4]), tmp_path / "data")
    assert log_statistics(store).repeats > 0.5
    encoder, _ = Recommender(name).configs(store)
    assert encoder.repeat_by == "count"
    encoder, _ = Recommender(name, encoder_options={"repeat_bias": 0}).configs(store)
    assert (encoder.repeat_bias, encoder.repeat_by) == (0, "last")


def test_the_published_networks_are_never_changed() -> None:
    assert all(choices_for(name, "paper", DENSE) == [] for name in BUILT_IN)


@pytest.mark.parametrize("said", [True, False])
def test_a_choice_is_said_and_kept_and_what_was_said_otherwise_wins(said: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log = _frame([rng.integers(0, 30, 8).tolist() for _ in range(40)])
    own: dict[str, dict[str, Any]] = {"encoder": {}, "training": {}}
    if said:
        own = {"encoder": {"max_length": 7, "item_sum": False}, "training": {"batch_events": 128}}
    lines: list[str] = []
    model = Recommender(
        "sasrec",
        encoder_options={
            "d_model": 16,
            "n_layers": 1,
            **({"max_length": 7, "item_sum": False} if said else {}),
        },
        training_options={"epochs": 1, **own["training"]},
    )
    model.fit(log, out=tmp_path / "run", notify=lines.append)
    chosen = [line for line in lines if line.startswith("Chosen")]
    if said:
        assert chosen == []
    else:
        assert chosen == [
            "Chosen for histories of 6.0 training events: encoder.max_length = 50, encoder.item_sum = True",
            "Chosen for 240 training events: training.batch_events = 64",
        ]
    text = (tmp_path / "run" / "config.toml").read_text()
    assert f"item_sum = {str(not said).lower()}\n" in text
    assert f"max_length = {7 if said else 50}\n" in text
    assert f"batch_events = {128 if said else 64}\n" in text
    again = Recommender.load(tmp_path / "run")
    assert to_dict(again.encoder_.config)["max_length"] == (7 if said else 50)


def test_an_encoder_of_ones_own_chooses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sasrec = registration("sasrec")
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    class Own(sasrec.encoder):  # type: ignore[misc, name-defined]
        pass

    def suited(log: LogStatistics) -> list[Choice]:
        return [Choice("tests", {"d_model": log.items}, {})]

    register_encoder("own_for_choices", config=sasrec.config, suited=suited)(Own)
    assert _chosen("own_for_choices", DENSE) == {"d_model": 3416}
