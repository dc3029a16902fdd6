"""A run behind the protocol: its answers are those of `recommend`, `similar_items` and the encoder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import Recommender
from recsys.events.store import Event
from recsys.serving.engine.engine import ServingEngine
from tests.serving.doubles import MemoryEvents
from tests.serving.engine.runs import answered, engine_of, saved_run
from tests.serving.oip.shop import Client

HISTORIES = [[3, 5, 8], [1], [], [9, 3, 3, 11, 4]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("protocol") / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture
def events() -> MemoryEvents:
    return MemoryEvents()


@pytest.fixture
def engine(run: Path, events: MemoryEvents) -> Iterator[ServingEngine]:
    made = engine_of(run, events)
    yield made
    made.end()


def whole(name: str, values: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": "INT64", "shape": [len(values)], "data": values}


def ask(engine: ServingEngine, name: str, *inputs: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    """Outputs by name."""
    response = Client(engine).post(
        f"/v2/models/{name}/infer", json={"inputs": inputs, "parameters": parameters}
    )
    assert response.status_code == 200, response.text
    return {
        each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in response.json()["outputs"]
    }


def flat(histories: list[list[int]]) -> tuple[dict[str, Any], dict[str, Any]]:
    items = [item for history in histories for item in history]
    return whole("history", items), whole("lengths", [len(history) for history in histories])


@pytest.mark.parametrize("parameters", [{}, {"k": 3, "exclude_seen": False}, {"k": 30, "category": "c"}])
def test_histories(engine: ServingEngine, model: Recommender, parameters: dict[str, Any]) -> None:
    known = [history for history in HISTORIES if history]
    found = ask(engine, "recommend_history", *flat(known), **parameters)
    wanted = answered(model, known, **{"k": 10, **parameters})
    for place, row in enumerate(wanted):
        count = found["count"][place]
        assert found["item"][place, :count].tolist() == [item for item, _, _ in row]
        np.testing.assert_allclose(found["score"][place, :count], [score for _, score, _ in row], atol=1e-5)
        assert not found["score"][place, count:].any()
        assert not found["item"][place, count:].any()
    assert found["item"].shape == (len(known), parameters.get("k", 10))


def test_nobody_gets_what_is_popular(engine: ServingEngine) -> None:
    response = Client(engine).post("/v2/models/recommend_history/infer", json={"inputs": flat([[]])})
    assert response.json()["parameters"] == {"fallback": 1}
    assert response.json()["outputs"][2]["data"] == [10]


def test_users_with_what_came_in_since(
    engine: ServingEngine, model: Recommender, events: MemoryEvents
) -> None:
    before = ask(engine, "recommend", whole("user", [7]))["item"][0]
    logged = model.recommend(users=[7], k=10)
    assert before.tolist() == logged["item_id"].to_list()
    events.append([Event(7, int(before[0]), 2_000_000_000)])
    after = ask(engine, "recommend", whole("user", [7]))["item"][0]
    assert before[0] not in after


def test_neighbours_and_states(engine: ServingEngine, model: Recommender) -> None:
    found = ask(engine, "similar", whole("item", [3, 4]), k=5)
    wanted = model.similar_items([3, 4], 5)
    assert found["item"].reshape(-1).tolist() == wanted["similar_item_id"].to_list()
    known = [history for history in HISTORIES if history]
    states = ask(engine, "encode", *flat(known))["state"]
    assert states.shape == (3, 16)
    for row, history in zip(states, known, strict=True):
        np.testing.assert_allclose(row, ask(engine, "encode", *flat([history]))["state"][0], atol=1e-5)


def test_ids_that_the_run_does_not_know(engine: ServingEngine) -> None:
    client = Client(engine)
    response = client.post("/v2/models/similar/infer", json={"inputs": [whole("item", [999])]})
    assert response.status_code == 400
    assert "999" in response.json()["error"]
    response = client.post("/v2/models/recommend_history/infer", json={"inputs": flat([[999, 3]])})
    assert response.json()["parameters"] == {"unknown": 1}


def test_a_run_with_a_clock_takes_times(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", clock="pool")
    model = Recommender.load(run)
    known = [history for history in HISTORIES if history]
    times = [[1_000_000_000 + 7200 * place for place in range(len(history))] for history in known]
    inputs = (*flat(known), whole("times", [each for row in times for each in row]))
    engine = engine_of(run)
    try:
        for at in (1_000_100_000, 1_000_130_000):
            found = ask(engine, "recommend_history", *inputs, k=5, at=at)
            wanted = answered(model, known, k=5, times=times, at=at)
            assert found["item"].tolist() == [[item for item, _, _ in row] for row in wanted]
    finally:
        engine.end()
