"""Kept states answer what requests answer: repeat bias, clock, filters and events that came since."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recsys
from recsys import Recommender
from recsys.answering.search import search_users
from recsys.answering.user_states import UserStates
from recsys.datasets.synthetic.logs import clock_log
from recsys.encoders.repeat_bias import RepeatBias
from recsys.errors import ArgumentError, UnknownIdError
from tests.answering.models import LONGEST, random_model

ENCODERS = ("sasrec", "mamba", "bert4rec")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("live") / "data")
    recsys.prepare(clock_log(40, 20, mean_length=10, utc_offset_hours=-5).frame, folder, time_zone="-05:00")
    return folder


def trained(name: str, data: Any, clock: str) -> Recommender:
    return random_model(name, data, clock=clock)


def close(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    """Equal answers, but for the last bits of the scores."""
    assert found.columns == wanted.columns
    for column in ("user_id", "item_id", "rank", "source"):
        assert found[column].to_list() == wanted[column].to_list(), column
    np.testing.assert_allclose(found["score"].to_numpy(), wanted["score"].to_numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("clock", ["off", "pool", "hours"])
@pytest.mark.parametrize("name", ENCODERS)
def test_live_users_get_what_recommend_gives(name: str, clock: str, data: Path) -> None:
    model = trained(name, data, clock)
    live = model.live_users()
    users = model._names.users.decode(np.arange(6)).to_list()
    moments = [None] if clock == "off" else [None, "2031-03-01T08:00", "2031-03-01T20:00"]
    for at in moments:
        for options in ({}, {"exclude_seen": False}, {"allow": range(0, 20, 2), "deny": [4]}):
            close(live.recommend(users, at=at, k=8, **options), model.recommend(users, at=at, k=8, **options))
    # Events come in, for a user of the log and for a new one, past the window.
    log = {user: _history(model, user) for user in users[:2]}
    rng = np.random.default_rng(3)
    for step in range(LONGEST + 4):
        for user in users[:2]:
            item, when = int(rng.integers(20)), 1_900_000_000 + 7000 * step
            live.append(user, item, when)
            log[user][0].append(item)
            log[user][1].append(when)
        if step % 5 and step < LONGEST:
            continue
        for at in moments:
            for seen in (True, False):
                wanted = model.recommend(
                    histories=[log[user][0] for user in users[:2]],
                    times=[log[user][1] for user in users[:2]],
                    at=at,
                    k=8,
                    exclude_seen=seen,
                )
                named = wanted.with_columns(user_id=pl.Series(users)[wanted["user_id"]])
                close(live.recommend(users[:2], at=at, k=8, exclude_seen=seen), named)


def test_a_mask_whose_time_is_read_is_encoded_for_its_hour(data: Path) -> None:
    model = random_model("bert4rec", data, clock="pool", time_bias=4)
    users = model._names.users.decode(np.arange(6)).to_list()
    for at in (None, "2031-03-01T08:00", "2039-03-01T20:00"):
        close(model.live_users().recommend(users, at=at, k=8), model.recommend(users, at=at, k=8))


def _history(model: Recommender, user: Any) -> tuple[list[Any], list[int]]:
    store = model.store_
    row = int(model._names.users.encode([user])[0])
    assert store.timestamps is not None
    span = slice(store.offsets[row], store.offsets[row + 1])
    return model._names.items.decode(store.items[span]).to_list(), store.timestamps[span].tolist()


def test_states_are_searched_as_requests_are(data: Path) -> None:
    model = trained("sasrec", data, "off")
    store = model.store_

    def history(row: Any) -> Any:
        return store.history(row, "all").astype(np.int64), None

    states = UserStates(model.encoder_, history)
    for row in range(5):
        query = states.query(row)
        assert query is not None
        found = search_users(model.encoder_, model.decoder_, query, 6, exclude_seen=False)
        wanted = model.recommend(users=model._names.users.decode([row]), k=6, exclude_seen=False)
        assert model._names.items.decode(found.ids[0]).to_list() == wanted["item_id"].to_list()
        np.testing.assert_allclose(found.scores[0], wanted["score"].to_numpy(), rtol=1e-3, atol=1e-4)


def test_new_users_items_and_moments(data: Path) -> None:
    model = trained("sasrec", data, "off")
    live = model.live_users()
    with pytest.warns(UserWarning, match="most popular"):
        assert set(live.recommend([999], k=3)["source"]) == {"popular"}
    live.append("999", 3, "2031-03-01T08:00")
    found = live.recommend([999], k=3)
    assert found["user_id"].to_list() == [999] * 3
    assert set(found["source"]) == {"model"}
    # A request without an offset is local time of the log's zone, five hours behind.
    times = live._history(("new", 999))[1]
    assert times is not None
    assert times.tolist() == [1_930_136_400]
    with pytest.raises(ArgumentError, match="lies before user 999's last event"):
        live.append(999, 3, 1_930_136_399)
    with pytest.raises(ArgumentError, match="has no time"):
        live.append(999, 3)
    with pytest.raises(UnknownIdError, match="unknown item 'x'"):
        live.append(999, "x", 1_930_136_500)
    with pytest.raises(ArgumentError, match="not a whole number"):
        live.recommend(["somebody"])
    model.remove_items(found["item_id"].to_list()[:1])
    assert found["item_id"][0] not in live.recommend([999], k=20)["item_id"]


def test_an_item_of_the_window_scores_by_the_vector_that_it_has_now(data: Path) -> None:
    model = trained("sasrec", data, "off")
    asked: dict[str, Any] = {
        "histories": [[1, 2, 3]],
        "times": [[10, 20, 30]],
        "exclude_seen": False,
        "k": 20,
    }
    before = dict(model.recommend(**asked)["item_id", "score"].rows())
    model.add_items([2, 9], vectors=np.stack([model.index_.vectors_of(np.array([n]))[0] * 2 for n in (2, 9)]))
    after = dict(model.recommend(**asked)["item_id", "score"].rows())
    assert isinstance(model.encoder_.repeat_bias, RepeatBias)
    bias = float(model.encoder_.repeat_bias.of_distances(np.array([2]))[0])
    assert after[9] == pytest.approx(2 * before[9], rel=1e-4)
    assert after[2] - bias == pytest.approx(2 * (before[2] - bias), rel=1e-4)
    assert after[3] == pytest.approx(before[3], rel=1e-4)
