"""A run with columns goes on with a log whose columns have other values: rows go by name."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys import Recommender, prepare
from recsys.errors import DataError
from recsys.run_folder.parents import Succession, read_parent
from recsys.training.trainer import Trainer
from tests.conftest import random_log

SIZES: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 12, "clock": "off"}
READS: dict[str, Any] = {
    "event_columns": ("action", "price"),
    "request_columns": ("local_hour", "action"),
    "user_columns": ("region",),
}
DATA: dict[str, Any] = {
    "event_columns": "device,price,action",
    "request_columns": "action,local_hour",
    "user_columns": "region",
    "time_zone": "+01:00",
}


def _log(actions: list[str], prices: list[float], regions: list[str], seed: int = 0) -> pl.DataFrame:
    log = random_log(users=30, items=20, seed=seed, longest=14)
    rng = np.random.default_rng(seed)
    n = log.height
    users = log["user_id"].cast(pl.Int64).to_numpy()
    return log.with_columns(
        action=pl.Series(rng.choice(actions, n)),
        price=pl.Series(rng.choice(prices, n)),
        device=pl.Series(rng.choice(["tv", "phone"], n)),
        region=pl.Series(np.array(regions)[users % len(regions)]),
    )


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    training = {"epochs": 2, "batch_events": 128, "ema_decay": 0.9}
    fresh = Recommender("sasrec", encoder_options={**SIZES, **READS}, training_options=training)
    log = _log(["buy", "view"], [1.0, 2.0, 4.0], ["north", "south"])
    return fresh.fit(log, out=tmp_path_factory.mktemp("parent") / "run", data_options=DATA)


def test_rows_of_values_go_by_name(parent: Recommender, tmp_path: Path) -> None:
    assert parent._folder is not None
    run = read_parent(parent._folder)
    log = _log(["add", "view", "buy"], [0.5, 1.0, 3.0, 5.0], ["east", "north"], seed=1)
    store = prepare(log, tmp_path / "data", **{**DATA, "event_columns": "price,action"})
    assert store.event_columns is not None
    assert store.event_columns.events[0].edges == (1.0, 3.0, 5.0)
    found = Succession.of(run, store, "the log")
    # Missing, add, buy, view; missing, below 1, from 1, from 3, from 5, where ranges from 2 and 4 were.
    events = found.places.columns["event_columns.weight"]
    assert events.rows.tolist() == [0, -1, 1, 2, 3, 4, 4, 5, 6]
    assert events.otherwise.tolist() == [0] * 4 + [3] * 5
    assert found.places.columns["request_columns.weight"].rows.tolist() == [0, -1, 1, 2]
    assert found.places.columns["user_output.weight"].rows.tolist() == [0, -1, 1]
    grown = Recommender("sasrec", training_options={"epochs": 1})
    grown.fit(store, out=tmp_path / "run", from_run=parent._folder)
    after = grown.encoder_.state_dict()
    for name in ("event_columns.weight", "request_columns.weight", "user_input.weight"):
        places = found.places.columns[name]
        assert after[name].shape == (len(places.rows), 16)
    assert grown.recommend([1], context={"action": "add", "region": "east"}, k=3).height == 3


def test_new_values_start_as_missing_ones_with_moments_of_zero(parent: Recommender, tmp_path: Path) -> None:
    from recsys.encoders.registry import build_encoder
    from recsys.training.column_inputs import column_inputs

    assert parent._folder is not None
    run = read_parent(parent._folder)
    log = _log(["add", "view", "buy"], [1.0, 2.0, 4.0], ["north", "south"], seed=1)
    store = prepare(log, tmp_path / "data", **DATA)
    succession = Succession.of(run, store, "the log")
    encoder = build_encoder("sasrec", store.n_items, run.settings.encoder, columns=column_inputs(store))
    trainer = Trainer(encoder, store, run.settings.training)
    line = succession.hand_over(trainer)
    assert "columns: 2 new value(s), which start as missing ones" in line
    tensors = trainer.tensors()
    old, new = (own["model/event_columns.weight"] for own in (run.tensors, tensors))
    assert torch.equal(new, old[[0, 0, 1, 2, 3, 4, 5, 6]])
    moments = [n for n in tensors if n.startswith("optimizer/event_columns.weight/") and tensors[n].dim() > 1]
    assert moments
    for name in moments:
        assert not tensors[name][1].any()
        assert torch.equal(tensors[name][2:], run.tensors[name][1:])
    average = "average/event_columns.weight"
    assert torch.equal(tensors[average][2:], run.tensors[average][1:])
    # What was known before is answered as before: a new value was missing, and is.
    for name in ("user_input.weight", "hour_output.weight"):
        assert torch.equal(tensors[f"model/{name}"], run.tensors[f"model/{name}"])


def test_a_log_that_lacks_what_is_read_is_refused(parent: Recommender, tmp_path: Path) -> None:
    assert parent._folder is not None
    run = read_parent(parent._folder)
    log = _log(["buy", "view"], [1.0, 2.0], ["north", "south"], seed=1)
    lacking = prepare(log, tmp_path / "lacking", **{**DATA, "event_columns": "action"})
    with pytest.raises(
        DataError, match=r"no column 'price', which .*run reads; .* event_columns=action,price"
    ):
        Succession.of(run, lacking, "the log")
    words = log.with_columns(price=pl.format("p{}", "price"))
    other = prepare(words, tmp_path / "words", **DATA)
    with pytest.raises(DataError, match="column 'price' holds words, and .* was trained with numbers"):
        Succession.of(run, other, "the log")
    utc = prepare(log, tmp_path / "no zone", event_columns="action,price", request_columns="action")
    with pytest.raises(DataError, match="was prepared without a time zone"):
        Succession.of(run, utc, "the log")
