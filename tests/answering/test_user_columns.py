"""What is known of users decides answers: of the log's users, of those a context describes, of nobody."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import Recommender, load
from recsys.answering.each import Answer
from recsys.answering.each_request import Request
from recsys.errors import ArgumentError

TINY: dict[str, Any] = {
    "d_model": 16,
    "n_layers": 1,
    "d_ff": 16,
    "max_length": 12,
    "repeat_bias": 0,
    "dropout": 0.0,
}
READS = {"user_columns": ("region",), "request_columns": ("page",), "event_columns": ("page",)}
DATA = {"user_columns": "region", "request_columns": "page", "event_columns": "page"}
HOURS_S = 3600


def _log() -> pl.DataFrame:
    """Pairs come one after the other; in the north the even items of each are taken, whatever came first."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(300):
        south, pair = user % 2, int(rng.integers(10))
        for step in range(4):
            item = 2 * pair + (south if step else int(rng.integers(2)))
            pair = (pair + 1) % 10
            page = str(rng.choice(["home", "search"]))
            rows.append((user, item, 1_700_000_000 + step * HOURS_S, page, "south" if south else "north"))
    return pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "page", "region"], orient="row")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    training = {"epochs": 15, "batch_events": 128, "learning_rate": 0.02, "evaluate_every": 15}
    fresh = Recommender("sasrec", encoder_options={**TINY, **READS}, training_options=training)
    return fresh.fit(_log(), out=tmp_path_factory.mktemp("users") / "run", data_options=DATA)


def _arrays(model: Recommender, *args: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    found: tuple[np.ndarray, np.ndarray] = model.recommend_arrays(*args, k=20, exclude_seen=False, **options)
    return found


def test_a_region_decides_what_somebody_new_gets(model: Recommender) -> None:
    histories = [[item] for item in range(20) for _ in range(2)]
    ids, scores = _arrays(model, histories=histories, context={"region": ["north", "south"] * 20})
    wanted = [2 * ((item // 2 + 1) % 10) + south for item in range(20) for south in range(2)]
    assert np.mean(ids[:, 0] == wanted) > 0.9
    nobody = _arrays(model, histories=histories)[1]
    assert not np.array_equal(nobody, scores)
    with pytest.warns(UserWarning, match="region 'west' is nothing that training knew"):
        assert np.array_equal(_arrays(model, histories=histories, context={"region": "west"})[1], nobody)


def test_the_logs_users_are_known_and_may_be_told_otherwise(model: Recommender) -> None:
    log = _log().filter(pl.col("user_id") == 3).sort("timestamp")
    items, pages = log["item_id"].to_list(), log["page"].to_list()
    told: dict[str, Any] = {"histories": [items], "columns": {"page": [pages]}}
    known = _arrays(model, [3])[1]
    assert np.array_equal(known, _arrays(model, **told, context={"region": "south"})[1])
    assert not np.array_equal(known, _arrays(model, **told)[1])
    moved = _arrays(model, [3], context={"region": "north"})[1]
    assert np.array_equal(moved, _arrays(model, **told, context={"region": "north"})[1])
    nothing = _arrays(model, [3], context={"region": None})[1]
    assert np.array_equal(nothing, _arrays(model, **told)[1])
    page = _arrays(model, [3], context={"page": "home"})[1]  # what is not named stays as the log has it
    both = {"page": "home", "region": "south"}
    assert np.array_equal(page, _arrays(model, **told, context=both)[1])


def test_a_run_that_is_loaded_and_evaluated_reads_users(model: Recommender) -> None:
    assert model._folder is not None
    again = load(model._folder)
    assert np.array_equal(_arrays(again, [3, 4])[1], _arrays(model, [3, 4])[1])
    found = model.evaluate(ks=(1,))["hr@1"]
    store = model.store_
    codes = np.array(store.user_codes)
    try:
        store.user_codes = 3 - codes  # everybody from elsewhere
        assert model.evaluate(ks=(1,))["hr@1"] < 0.6 * found
    finally:
        store.user_codes = codes


def test_live_users_and_services_are_asked_alike(model: Recommender) -> None:
    live, users = model.live_users(), [3, 4]
    for context in (None, {"page": "home"}, {"region": "north"}, {"page": ["home", None], "region": "south"}):
        want = model.recommend(users, k=8, context=context)
        got = live.recommend(users, k=8, context=context)
        assert got["item_id"].to_list() == want["item_id"].to_list()
        np.testing.assert_allclose(got["score"], want["score"], atol=1e-4)
    requests = [Request(user=3, k=8, context={"page": "home"}), Request(user=4, k=8)]
    first, second = (a for a in model.answerer().answer(requests) if isinstance(a, Answer))
    assert first.ids == model.recommend([3], k=8, context={"page": "home"})["item_id"].to_list()
    assert second.ids == model.recommend([4], k=8)["item_id"].to_list()


def test_events_that_come_in_bring_their_columns(model: Recommender) -> None:
    live = model.live_users()
    later = 1_700_000_000 + 20 * HOURS_S
    log = _log().filter(pl.col("user_id") == 3).sort("timestamp")
    items, pages = log["item_id"].to_list(), log["page"].to_list()
    events = [(12, "home"), (2, "search"), (14, None)]
    for step, (item, page) in enumerate(events):
        columns = None if page is None else {"page": page}
        live.append(3, item, later + step, columns=columns)
        live.append("900", item, later + step, columns=columns)  # somebody new
    known = [*items, *(item for item, _ in events)]
    came = [*pages, *(page for _, page in events)]
    told: dict[str, Any] = {"histories": [known[-12:]], "columns": {"page": [came[-12:]]}, "k": 8}
    want = model.recommend(**told, context={"region": "south", "page": "home"})
    got = live.recommend([3], k=8, context={"page": "home"})
    np.testing.assert_allclose(got["score"], want["score"], atol=1e-4)
    new: dict[str, Any] = {
        "histories": [[12, 2, 14]],
        "columns": {"page": [["home", "search", None]]},
        "k": 8,
    }
    for context in (None, {"region": "south"}, {"page": "search"}):
        want = model.recommend(**new, context=context)
        got = live.recommend(["900"], k=8, context=context)
        np.testing.assert_allclose(got["score"], want["score"], atol=1e-4)
    # The same of a service, whose events came in meanwhile or with the request.
    since = [(item, later + step) for step, (item, _) in enumerate(events)]
    since_columns = [{"page": page, "unread": 1} if page else None for _, page in events]
    requests = [
        Request(user=3, since=since, since_columns=since_columns, context={"page": "home"}, k=8),
        Request(user=901, history=[12, 2, 14], columns={"page": ["home", "search", None]}, k=8),
    ]
    answers = [a for a in model.answerer().answer(requests) if isinstance(a, Answer)]
    both: dict[str, Any] = {"histories": [known], "columns": {"page": [came]}, "k": 8}
    want = model.recommend(**both, context={"region": "south", "page": "home"})
    np.testing.assert_allclose(answers[0].scores, want["score"], atol=1e-4)
    np.testing.assert_allclose(answers[1].scores, model.recommend(**new)["score"], atol=1e-4)
    keys = {own.reading.state_key() for own in answers}
    keys |= {
        a.reading.state_key() for a in model.answerer().answer([Request(user=3)]) if isinstance(a, Answer)
    }
    assert len(keys) == 3


def test_scores_of_everybody_are_asked_in_a_context(model: Recommender, tmp_path: Path) -> None:
    users, pages = [1, 2, 3, 4, 5], ["home", None, "search", "home", None]
    model.score(tmp_path / "out", users, k=5, context={"page": pages}, part_users=2)
    parts = pl.concat([pl.read_parquet(part) for part in sorted((tmp_path / "out").glob("part-*"))])
    assert parts.equals(model.recommend(users, k=5, context={"page": pages}))
    assert "context" in json.loads((tmp_path / "out" / "scoring.json").read_text())
    model.score(tmp_path / "one", users, k=5, context={"page": "home", "region": "north"})
    want = model.recommend(users, k=5, context={"page": "home", "region": "north"})
    assert pl.read_parquet(next((tmp_path / "one").glob("part-*"))).equals(want)
    model.score(tmp_path / "none", users, k=5)
    assert "context" not in json.loads((tmp_path / "none" / "scoring.json").read_text())


def test_what_is_not_read_is_refused(model: Recommender, tmp_path: Path) -> None:
    live = model.live_users()
    with pytest.raises(
        ArgumentError, match="context names 'age', which the model does not read: page, region"
    ):
        live.recommend([3], context={"age": 3})
    with pytest.raises(ArgumentError, match="columns names 'region', which the model does not read: page"):
        live.append(3, 1, 1_800_000_000, columns={"region": "north"})
    with pytest.raises(ArgumentError, match="context names 'age'"):
        model.score(tmp_path / "out", context={"age": 3})
    assert not (tmp_path / "out").exists()
    for request, said in (
        (Request(user=3, context={"age": 3}), "context names 'age'"),
        (Request(user=3, context={"page": ["a", "b"]}), "a request has one value of a column"),
        (Request(history=[1, 2], columns={"page": ["home"]}), "'page' has 1 values for the 2 items"),
        (Request(history=[1, 2], columns={"region": ["a", "b"]}), "columns names 'region'"),
    ):
        (found,) = model.answerer().answer([request])
        assert isinstance(found, ArgumentError)
        assert said in str(found)
