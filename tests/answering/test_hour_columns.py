"""A model that reads the hour as a column is asked at an hour, as one with a clock is."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import Recommender, load
from recsys.answering.each import Answer
from recsys.answering.each_request import Request
from recsys.errors import ArgumentError, ConfigError

TINY: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 12, "repeat_bias": 0}
READS = {"event_columns": ("local_hour",), "request_columns": ("local_hour",), "clock": "off"}
START_S = 1_700_006_400
"""A midnight, UTC."""
HOUR_S = 3600


def _log() -> pl.DataFrame:
    """Items 0 to 9 are taken in the morning, 10 to 19 in the evening, in no order."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(100):
        for day in range(10):
            evening = int(rng.integers(2))
            item = int(rng.integers(10)) + 10 * evening
            rows.append((user, item, START_S + 86_400 * day + HOUR_S * (8 + 12 * evening)))
    return pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    training = {"epochs": 12, "batch_events": 128, "learning_rate": 0.03, "ema_decay": 0.9}
    fresh = Recommender("sasrec", encoder_options={**TINY, **READS}, training_options=training)
    out = tmp_path_factory.mktemp("hours") / "run"
    return fresh.fit(_log(), out=out, data_options={"time_zone": "+00:00", "event_columns": "local_hour"})


def test_the_hour_that_is_asked_for_decides(model: Recommender) -> None:
    users = list(range(50))
    for hour, low in ((8, 0), (20, 10)):
        at = START_S + 86_400 * 11 + hour * HOUR_S
        ids = model.recommend_arrays(users, k=3, at=at, exclude_seen=False)[0].astype(int)
        assert np.mean((ids >= low) & (ids < low + 10)) > 0.95
    assert model.evaluate(ks=(10,))["hr@10"] > 0.8  # each is asked for at its own hour
    assert model._folder is not None
    again, when = load(model._folder), "2023-11-27T20:00"
    assert again.recommend(users, at=when).equals(model.recommend(users, at=when))
    plain, moved = model.recommend([1], time_zone="+06:00"), model.recommend([1])
    assert plain["score"].to_list() != moved["score"].to_list()


def test_live_users_and_services_are_asked_alike(model: Recommender, tmp_path: Path) -> None:
    live, later = model.live_users(), START_S + 86_400 * 11
    moments = [None, later + 8 * HOUR_S, later + 20 * HOUR_S]
    for at in moments:
        want, got = model.recommend([3, 4], k=5, at=at), live.recommend([3, 4], k=5, at=at)
        assert got["item_id"].to_list() == want["item_id"].to_list()
        np.testing.assert_allclose(got["score"], want["score"], atol=1e-4)
        answers = model.answerer().answer([Request(user=user, k=5, at=at) for user in (3, 4)])
        ids = [own for answer in answers if isinstance(answer, Answer) for own in answer.ids]
        assert ids == want["item_id"].to_list()
    log = _log().filter(pl.col("user_id") == 3)
    items, times = [*log["item_id"], 12, 2], [*log["timestamp"], later, later + 3 * HOUR_S]
    live.append(3, 12, later)
    live.append(3, 2, later + 3 * HOUR_S)
    for at in (None, later + 20 * HOUR_S):
        told = model.recommend(histories=[items[-12:]], times=[times[-12:]], k=5, at=at, time_zone="+00:00")
        got = live.recommend([3], k=5, at=at)
        np.testing.assert_allclose(got["score"], told["score"], atol=1e-4)
    model.score(tmp_path / "out", [3, 4], k=5, at=later + 8 * HOUR_S)
    part = pl.read_parquet(next((tmp_path / "out").glob("part-*")))
    assert part.equals(model.recommend([3, 4], k=5, at=later + 8 * HOUR_S))


def test_what_cannot_be_asked_is_refused(model: Recommender) -> None:
    with pytest.raises(
        ArgumentError, match="context names 'local_hour', the hour of local times: say it by at="
    ):
        model.recommend([1], context={"local_hour": 3})
    plain = Recommender("sasrec", encoder_options={**TINY, **READS})
    with pytest.raises(ConfigError, match="leave local_hour out of the encoder's columns"):
        plain.fit(_log())
