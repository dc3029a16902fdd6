"""A service's answers are those of `recommend` with what events brought and what is known of requests."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import Recommender
from recsys.datasets.synthetic.columns import action_log
from recsys.events.by_place import open_events
from recsys.events.store import Event
from recsys.serving.engine.asking import Answered, Ask
from recsys.serving.engine.engine import ServingEngine
from recsys.serving.oip.errors import ProtocolError
from recsys.serving.oip.inference import infer
from recsys.serving.oip.messages import InferRequest
from recsys.serving.oip.models import find_model
from recsys.serving.oip.tensors import Tensor
from tests.serving.engine.runs import engine_of

TINY: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 12, "repeat_bias": 0}
READS = {"event_columns": ("action", "type"), "request_columns": ("page",), "user_columns": ("region",)}
DATA = {"event_columns": "action,type", "request_columns": "page", "user_columns": "region"}


def _log() -> pl.DataFrame:
    frame = action_log(60, 20, mean_length=10, seed=2).frame
    rng = np.random.default_rng(0)
    return frame.with_columns(
        page=pl.Series(rng.choice(["home", "search"], frame.height)),
        type=pl.Series(rng.choice(["view", "buy"], frame.height)),
        region=pl.format("r{}", pl.col("user_id").cast(pl.Int64) % 2),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    training = {"epochs": 2, "batch_events": 256, "learning_rate": 0.05}
    fresh = Recommender("sasrec", encoder_options={**TINY, **READS}, training_options=training)
    return fresh.fit(_log(), out=tmp_path_factory.mktemp("served") / "run", data_options=DATA)


@pytest.fixture
def engine(model: Recommender, tmp_path: Path) -> Any:
    assert model._folder is not None
    events = open_events(str(tmp_path / "events.db"))
    found = engine_of(model._folder, events)
    yield found
    found.end()
    events.close()


def _asked(engine: ServingEngine, **ask: Any) -> Answered:
    return asyncio.run(engine.recommend(Ask(k=8, **ask)))


def _same(answer: Answered, model: Recommender, **asked: Any) -> None:
    want = model.recommend(k=8, **asked)
    assert [item.id for item in answer.items] == want["item_id"].to_list()
    np.testing.assert_allclose([item.score for item in answer.items], want["score"], atol=1e-4)


def test_answers_read_context_and_what_events_brought(engine: ServingEngine, model: Recommender) -> None:
    _same(_asked(engine, user=3), model, users=[3])
    _same(_asked(engine, user=3, context={"page": "home"}), model, users=[3], context={"page": "home"})
    told = {"page": "search", "region": "r0", "another model's": 1}
    _same(_asked(engine, user=3, context=told), model, users=[3], context={"page": "search", "region": "r0"})
    new = {"history": [5, 7], "columns": {"action": ["view", "buy"], "unread": [1, 2]}}
    _same(_asked(engine, **new), model, histories=[[5, 7]], columns={"action": [["view", "buy"]]})
    # Kept vectors and answers are of one context: each of these again, in another order.
    for context in ({"page": "search"}, None, {"page": "home"}, {"page": "search"}, {"page": "nowhere"}):
        known = None if context == {"page": "nowhere"} else context
        _same(_asked(engine, user=3, context=context), model, users=[3], context=known)
    log = _log().filter(pl.col("user_id") == 3).sort("timestamp")
    last = int(log["timestamp"][-1])
    events = engine._events
    assert events is not None
    came = [("buy", "view"), (None, "buy"), ("never seen", None)]
    events.append(
        [
            Event(3, 6 + step, last + 1 + step, type=kind, columns={"action": action, "price": 3.5})
            for step, (action, kind) in enumerate(came)
        ]
    )
    items = [*log["item_id"].to_list(), 6, 7, 8]
    columns = {
        "action": [[*log["action"].to_list(), "buy", None, None]],
        "type": [[*log["type"].to_list(), "view", "buy", None]],
    }
    context = {"page": "home"}
    answer = _asked(engine, user=3, context=context)
    _same(answer, model, histories=[items], columns=columns, context={**context, "region": "r1"})
    assert _asked(engine, user=3, context=context).cached
    info = engine.models()[0]
    assert (info.event_columns, info.context_columns) == (("action", "type"), ("page", "region"))


def test_the_open_inference_protocol_takes_a_context(engine: ServingEngine, model: Recommender) -> None:
    users = Tensor("user", "INT64", (2,), np.array([3, 4]))

    def asked(context: Any) -> Any:
        request = InferRequest(inputs={"user": users}, parameters={"k": 8, "context": context})
        return asyncio.run(infer(engine, find_model(engine.models(), "recommend"), request))

    want = model.recommend([3, 4], k=8, context={"page": "home"})
    for given in ({"page": "home"}, json.dumps({"page": "home"})):
        found = asked(given)
        assert [item.id for answer in found.answers for item in answer.items] == want["item_id"].to_list()
    for odd, said in (("{", "is no object"), ({"page": [1]}, "'page' is neither text"), (3, "is no object")):
        with pytest.raises(ProtocolError, match=f"parameter 'context' {said}"):
            asked(odd)
    with pytest.raises(Exception, match="'pages' is no column that the model reads: it reads page, region"):
        asked({"pages": "home"})
