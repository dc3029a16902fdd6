"""What callers say of events and requests reaches the model that reads it, and nobody else."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import Recommender, load
from recsys.answering.each import Answer
from recsys.answering.each_request import Request
from recsys.datasets.synthetic.columns import action_log
from recsys.errors import ArgumentError

TINY: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 12, "repeat_bias": 0}
OPTIONS: dict[str, Any] = {"event_columns": "action", "request_columns": "page"}


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    frame = action_log(60, 20, mean_length=10, seed=2).frame
    pages = np.random.default_rng(0).choice(["home", "search"], frame.height)
    return frame.with_columns(pl.Series("page", pages))


@pytest.fixture(scope="module")
def model(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    reads = {"event_columns": ("action",), "request_columns": ("page",)}
    training = {"epochs": 2, "batch_events": 256, "learning_rate": 0.02}
    fresh = Recommender("sasrec", encoder_options={**TINY, **reads}, training_options=training)
    return fresh.fit(log, out=tmp_path_factory.mktemp("columns") / "run", data_options=OPTIONS)


def _scores(model: Recommender, *args: Any, **options: Any) -> np.ndarray:
    found: np.ndarray = model.recommend_arrays(*args, k=20, exclude_seen=False, **options)[1]
    return found


def test_a_users_own_columns_are_read_as_if_told(model: Recommender, log: pl.DataFrame) -> None:
    user = log["user_id"][0]
    own = log.filter(pl.col("user_id") == user).sort("timestamp")
    items, actions = own["item_id"].to_list(), own["action"].to_list()
    known = _scores(model, [user])
    assert np.array_equal(known, _scores(model, histories=[items], columns={"action": [actions]}))
    assert not np.array_equal(known, _scores(model, histories=[items]))
    turned = ["view" if action == "buy" else "buy" for action in actions]
    assert not np.array_equal(known, _scores(model, histories=[items], columns={"action": [turned]}))
    # Items that are not known leave with what came with them.
    longer, more = [*items[:2], 999, *items[2:]], [*actions[:2], "buy", *actions[2:]]
    told = _scores(model, histories=[longer], columns={"action": [more]}, on_unknown="ignore")
    assert np.array_equal(known, told)


def test_a_context_is_one_for_all_or_one_each(model: Recommender) -> None:
    users = [0, 1, 2]
    silent, home = _scores(model, users), _scores(model, users, context={"page": "home"})
    search = _scores(model, users, context={"page": "search"})
    assert not np.array_equal(silent, home)
    assert not np.array_equal(home, search)
    each = _scores(model, users, context={"page": ["home", "search", None]})
    assert np.array_equal(each, np.stack([home[0], search[1], silent[2]]))
    assert np.array_equal(_scores(model, users, context={"page": pl.Series(["home", "search", None])}), each)
    assert np.array_equal(_scores(model, users, context={"page": np.array("home")}), home)
    assert np.array_equal(_scores(model, users, context={"page": ["home", "search", float("nan")]}), each)
    with pytest.warns(UserWarning, match="context: page 'cart' is nothing that training knew"):
        assert np.array_equal(_scores(model, users, context={"page": "cart"}), silent)


def test_a_run_that_is_loaded_answers_the_same(model: Recommender) -> None:
    assert model._folder is not None
    again = load(model._folder)
    for options in ({}, {"context": {"page": "home"}}):
        assert np.array_equal(_scores(again, [3, 4], **options), _scores(model, [3, 4], **options))


def test_services_read_the_logs_columns_and_miss_later_ones(model: Recommender) -> None:
    live, users = model.live_users(), [0, 5]
    found = live.recommend(users, k=5)
    assert found.equals(model.recommend(users, k=5))
    answers = model.answerer().answer([Request(user=user, k=5) for user in users])
    ids = [answer.ids for answer in answers if isinstance(answer, Answer)]
    assert ids == [found.filter(pl.col("user_id") == user)["item_id"].to_list() for user in users]
    row = model.store_.offsets
    item, moment = 7, int(model.store_.timestamps.max()) + 60 if model.store_.timestamps is not None else 0
    live.append(0, item, moment)
    own = model.store_.items[: row[1]].tolist()
    columns = model.store_.event_columns
    assert columns is not None
    assert model.store_.event_codes is not None
    words = [None, *(columns.events[0].values or ())]
    actions = [words[code] for code in model.store_.event_codes[: row[1], 0]]
    ids = model._names.items.decode(np.array(own)).to_list()
    told = model.recommend(histories=[[*ids, item]], columns={"action": [[*actions, None]]}, k=5)
    after = live.recommend([0], k=5)
    assert after["item_id"].to_list() == told["item_id"].to_list()
    np.testing.assert_allclose(after["score"], told["score"], rtol=1e-4)


def test_what_does_not_fit_is_refused(model: Recommender, log: pl.DataFrame) -> None:
    def refused(said: str, **options: Any) -> None:
        with pytest.raises(ArgumentError, match=said) as caught:
            model.recommend(**options)
        assert "\n" not in str(caught.value)

    pair: dict[str, Any] = {"histories": [[1, 2], [3]]}
    refused("columns go with histories", users=[1], columns={"action": [["view"]]})
    refused("columns names 'acton', which the model does not read: action", **pair, columns={"acton": []})
    refused("columns: 'action' has 1 lists for 2 histories", **pair, columns={"action": [["view", "buy"]]})
    refused(
        "columns: 'action' has 1 values for the 2 items of history 0",
        **pair,
        columns={"action": [["view"], ["buy"]]},
    )
    refused("columns: 'action' has 'view' for the 2 items", **pair, columns={"action": ["view", "buy"]})
    refused("columns: 'action' must be a list of lists", **pair, columns={"action": "view"})
    refused("columns=.* is no mapping", **pair, columns=[["view"]])
    refused(
        "context names 'action', which the model does not read: page", users=[1], context={"action": "buy"}
    )
    refused("context: 'page' holds 3 values for 1 requests", users=[1], context={"page": ["a", "b", "c"]})
    refused("context='home' is no mapping", users=[1], context="home")
    plain = Recommender("sasrec", encoder_options=TINY, training_options={"epochs": 1}).fit(log)
    with pytest.raises(ArgumentError, match="context= has no part in this model's answers"):
        plain.recommend([1], context={"page": "home"})
    with pytest.raises(ArgumentError, match="columns= has no part in this model's answers"):
        plain.recommend(histories=[[1]], columns={"action": [["view"]]})


def test_other_data_are_read_where_their_columns_mean_the_same(
    model: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    from recsys import prepare

    half = log.filter(pl.col("user_id") < 30)
    same = prepare(half, tmp_path / "same", **OPTIONS)
    assert model.evaluate(same).users == 30
    renamed = half.with_columns(pl.col("action").str.replace("buy", "order"))
    other = prepare(renamed, tmp_path / "other", **OPTIONS)
    with pytest.raises(ArgumentError, match="its event columns are not those that the model was trained on"):
        model.evaluate(other)
    with pytest.raises(ArgumentError, match="this log keeps columns of events that belong to them"):
        model.evaluate(tie_orders=2)
