"""Every route of the protocol, before an engine whose answers are worked out by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import __version__
from recsys.serving.http.keys import new_key
from recsys.serving.oip.models import KINDS
from recsys.serving.oip.routes import HEADER_LENGTH
from tests.serving.oip.shop import NUMBERS, Client, RingEngine


@pytest.fixture
def engine() -> RingEngine:
    return RingEngine()


@pytest.fixture
def client(engine: RingEngine) -> Client:
    return Client(engine)


def texts(name: str, *values: str) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": list(values)}


def whole(name: str, *values: int) -> dict[str, Any]:
    return {"name": name, "datatype": "INT64", "shape": [len(values)], "data": list(values)}


def ask(client: Client, model: str, *inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Outputs by name, nested as their shapes are, with everything else of the response."""
    response = client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    for output in found.pop("outputs"):
        found[output["name"]] = np.array(output["data"]).reshape(output["shape"]).tolist()
    return found


def refusal(client: Client, model: str, *inputs: dict[str, Any], status: int = 400, **fields: Any) -> str:
    response = client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **fields})
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])


def test_server(client: Client) -> None:
    assert client.get("/v2").json() == {
        "name": "recsys",
        "version": __version__,
        "extensions": ["binary_tensor_data", "parameters", "statistics", "model_repository"],
    }


def test_live_is_the_compute_thread(client: Client, engine: RingEngine) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    engine.age = 61
    response = client.get("/v2/health/live")
    assert (response.status_code, response.json()) == (503, {"live": False})


def test_ready_says_both_words_and_why_not(client: Client, engine: RingEngine) -> None:
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert client.get("/v2/models/recommend/ready").json() == {"name": "recommend", "ready": True}
    engine.why_not = "the queue is full"
    response = client.get("/v2/health/ready")
    assert response.status_code == 503
    assert response.json() == {"live": True, "ready": False, "error": "the queue is full"}
    assert client.get("/v2/models/recommend/versions/v1/ready").status_code == 503


def test_models_are_asked_by_kind_or_by_run_and_kind(client: Client) -> None:
    names = client.get("/v2/models").json()["models"]
    assert names == [
        *KINDS,
        *(f"ring.{kind}" for kind in KINDS),
        *(f"other.{kind}" for kind in KINDS),
    ]
    for name in names:
        assert client.get(f"/v2/models/{name}").json()["name"] == name


def test_metadata_of_text_ids(client: Client) -> None:
    assert client.get("/v2/models/recommend").json() == {
        "name": "recommend",
        "versions": ["v1", "v2"],
        "platform": "recsys_sasrec",
        "inputs": [{"name": "user", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "item", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "score", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "count", "datatype": "INT32", "shape": [-1]},
        ],
    }
    found = client.get("/v2/models/other.encode/versions/v2").json()
    assert found["versions"] == ["v2"]
    assert [entry["name"] for entry in found["inputs"]] == ["history", "lengths"]
    assert found["outputs"] == [{"name": "state", "datatype": "FP32", "shape": [-1, 2]}]


def test_metadata_of_whole_ids_and_times() -> None:
    client = Client(RingEngine(NUMBERS, needs_times=True))
    found = client.get("/v2/models/recommend_history").json()
    assert [(entry["name"], entry["datatype"]) for entry in found["inputs"]] == [
        ("history", "INT64"),
        ("lengths", "INT64"),
        ("times", "INT64"),
    ]
    assert found["outputs"][0]["datatype"] == "INT64"


def test_recommend_pads_short_rows(client: Client, engine: RingEngine) -> None:
    found = ask(client, "recommend", texts("user", "fig", "nobody"), id="7", parameters={"k": 5})
    assert found == {
        "model_name": "recommend",
        "model_version": "v1",
        "id": "7",
        "parameters": {"unknown": 1, "fallback": 1},
        "item": [["kiwi", "apple", "pear", "plum", ""], ["apple", "pear", "plum", "fig", "kiwi"]],
        "score": np.array(
            [[1, 1 / 2, 1 / 3, 1 / 4, 0], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]], dtype=np.float32
        ).tolist(),
        "count": [4, 5],
    }
    assert [each.model for each in engine.asked] == [None, None]


def test_parameters_reach_the_engine(client: Client, engine: RingEngine) -> None:
    given = {
        "k": 3,
        "exclude_seen": False,
        "category": "sweet",
        "at": "2026-03-01T08:30",
        "time_zone": "Europe/Berlin",
    }
    found = ask(client, "other.recommend", texts("user", "apple"), parameters=given)
    assert found["item"] == [["pear", "plum", "fig"]]
    assert found["model_version"] == "v2"
    (asked,) = engine.asked
    assert (asked.k, asked.exclude_seen, asked.category) == (3, False, ("sweet",))
    assert (asked.at, asked.time_zone, asked.model) == ("2026-03-01T08:30", "Europe/Berlin", "other")
    ask(client, "recommend", texts("user", "apple"), parameters={"category": ["sweet", "sweet"], "at": 5})
    assert (engine.asked[-1].category, engine.asked[-1].at) == (("sweet", "sweet"), 5)


def test_a_version_asks_the_run_that_has_it(client: Client, engine: RingEngine) -> None:
    response = client.post(
        "/v2/models/recommend/versions/v2/infer", json={"inputs": [texts("user", "apple")]}
    )
    assert response.json()["model_version"] == "v2"
    assert engine.asked[0].model == "other"


def test_histories_are_cut_by_their_lengths(client: Client, engine: RingEngine) -> None:
    found = ask(
        client,
        "recommend_history",
        texts("history", "apple", "pear", "kiwi", "stone"),
        whole("lengths", 2, 0, 2),
        parameters={"k": 2},
    )
    assert [list(each.history or []) for each in engine.asked] == [["apple", "pear"], [], ["kiwi", "stone"]]
    assert found["item"] == [["plum", "fig"], ["apple", "pear"], ["apple", "pear"]]
    assert found["parameters"] == {"unknown": 1, "fallback": 1}


def test_times_belong_to_their_histories() -> None:
    engine = RingEngine(NUMBERS, needs_times=True)
    client = Client(engine)
    inputs = (whole("history", 10, 20, 30), whole("lengths", 1, 2), whole("times", 1, 2, 3))
    found = ask(client, "recommend_history", *inputs, parameters={"k": 1})
    assert found["item"] == [[20], [40]]
    assert [each.times for each in engine.asked] == [[1], [2, 3]]
    assert ask(client, "encode", *inputs)["state"] == [[1, 1], [2, 5]]
    assert "input 'times' is missing" in refusal(client, "encode", *inputs[:2])
    short = (*inputs[:2], whole("times", 1))
    assert "'times' has 1 elements, 'history' has 3" in refusal(client, "encode", *short)


def test_similar_and_encode(client: Client) -> None:
    found = ask(client, "similar", texts("item", "pear"), parameters={"k": 2})
    assert (found["item"], found["count"]) == ([["plum", "fig"]], [2])
    found = ask(client, "encode", texts("history", "pear", "fig"), whole("lengths", 2, 0))
    assert found["state"] == [[2, 0], [0, 0]]


def test_nothing_asked_is_nothing_answered(client: Client) -> None:
    for model, inputs in {
        "recommend": [texts("user")],
        "recommend_history": [texts("history"), whole("lengths")],
        "similar": [texts("item")],
        "encode": [texts("history"), whole("lengths")],
    }.items():
        response = client.post(f"/v2/models/{model}/infer", json={"inputs": inputs})
        assert [output["shape"][0] for output in response.json()["outputs"]] == [0] * len(
            response.json()["outputs"]
        )


@pytest.mark.parametrize(
    "given",
    [
        whole("user", 10),
        {"name": "user", "datatype": "UINT8", "shape": [1], "data": [10]},
        {"name": "user", "datatype": "INT32", "shape": [1], "data": [10]},
        texts("user", "10"),
    ],
)
def test_whole_ids_come_in_any_width_or_as_text(given: dict[str, Any]) -> None:
    client = Client(RingEngine(NUMBERS))
    found = ask(client, "recommend", given, parameters={"k": 5})
    assert (found["item"], found["count"]) == ([[20, 30, 40, 50, 0]], [4])


@pytest.mark.parametrize(
    "text", ["", "x", "07", "+7", " 7", "7 ", "1_0", "1.0", "\u0667", str(2**63), "9" * 250]
)
def test_text_that_is_no_whole_id(text: str) -> None:
    client = Client(RingEngine(NUMBERS))
    said = refusal(client, "recommend", texts("user", "10", text))
    assert said == "input 'user': element 1 is not a whole number, as the ids of this model are"


def test_a_number_is_no_text_id(client: Client) -> None:
    assert refusal(client, "recommend", whole("user", 7)) == "input 'user' is INT64, the model takes BYTES"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "input 'user' is missing: model 'recommend' takes user"),
        ([texts("users", "a")], "unexpected input 'users': model 'recommend' takes user"),
        ([{**texts("user", "a"), "shape": [1, 1]}], "input 'user' has shape [1, 1], the model takes [-1]"),
        ([texts("user", "a" * 257)], "input 'user': element 0 is longer than 256 bytes"),
        ([texts("user", *["a"] * 257)], "257 rows: 256 are the most of one request"),
    ],
)
def test_inputs_that_are_refused(client: Client, inputs: list[dict[str, Any]], said: str) -> None:
    assert refusal(client, "recommend", *inputs) == said


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ([1], "input 'lengths' adds up to 1, 'history' has 2 elements"),
        ([3, -1], "input 'lengths': histories have from 0 to 10000 events"),
        ([2**62, 2**62, 2**62, 2**62, 2], "input 'lengths': histories have from 0 to 10000 events"),
        ([0] * 257, "257 rows: 256 are the most of one request"),
    ],
)
def test_lengths_that_are_refused(client: Client, lengths: list[int], said: str) -> None:
    assert refusal(client, "encode", texts("history", "apple", "pear"), whole("lengths", *lengths)) == said


def test_an_unsigned_length_that_no_int64_holds(client: Client) -> None:
    lengths = {"name": "lengths", "datatype": "UINT64", "shape": [1], "data": [2**63]}
    assert "does not fit INT64" in refusal(client, "encode", texts("history"), lengths)


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("recommend", {"k": 0}, "parameter 'k' must be a whole number from 1 to 1000"),
        ("recommend", {"k": 1001}, "parameter 'k' must be a whole number from 1 to 1000"),
        ("recommend", {"k": True}, "parameter 'k' must be a whole number from 1 to 1000"),
        ("recommend", {"k": 5.0}, "parameter 'k' must be a whole number from 1 to 1000"),
        ("recommend", {"exclude_seen": 1}, "parameter 'exclude_seen' must be true or false"),
        ("recommend", {"category": []}, "parameter 'category' must be a name or a list of names"),
        ("recommend", {"category": 7}, "parameter 'category' must be a name or a list of names"),
        ("recommend", {"at": True}, "parameter 'at' must be unix seconds or ISO text"),
        ("recommend", {"time_zone": 1}, "parameter 'time_zone' must be a name, such as 'Europe/Berlin'"),
        ("recommend", {"timeout": 0.5}, "parameter 'timeout' must be a number of microseconds"),
        ("recommend", {"sequence_id": 7}, "unknown parameter 'sequence_id': this model takes k,"),
        ("encode", {"k": 7}, "unknown parameter 'k': this model takes timeout"),
        ("recommend", {"category": "sour"}, "category=['sour'] holds no item"),
    ],
)
def test_parameters_that_are_refused(client: Client, model: str, given: dict[str, Any], said: str) -> None:
    inputs = [texts("user", "a")] if model == "recommend" else [texts("history", "a"), whole("lengths", 1)]
    assert refusal(client, model, *inputs, parameters=given).startswith(said)


def test_what_the_engine_refuses(client: Client) -> None:
    assert refusal(client, "recommend", texts("user", "busy"), status=503) == "the queue is full"
    response = client.post("/v2/models/recommend/infer", json={"inputs": [texts("user", "apple", "busy")]})
    assert response.headers["retry-after"] == "1"
    assert response.json() == {"error": "row 1: the queue is full"}
    assert "stone" in refusal(client, "similar", texts("item", "stone"))


def test_a_mistake_of_the_engine_is_not_told(client: Client) -> None:
    said = refusal(client, "recommend", texts("user", "broken"), status=500)
    assert said == "the service could not answer; its log says why"


def test_a_request_that_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    class Slow(RingEngine):
        async def similar(self, *args: Any, **options: Any) -> Any:
            await asyncio.Event().wait()

    client = Client(Slow())
    said = refusal(client, "similar", texts("item", "pear"), status=504, parameters={"timeout": 1000})
    assert said == "the request's own timeout is over"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v2/models/none", "no model is called 'none': see GET /v2/models"),
        ("/v2/models/none/ready", "no model is called 'none': see GET /v2/models"),
        ("/v2/models/none/stats", "no model is called 'none': see GET /v2/models"),
        ("/v2/models/recommend/versions/v9", "model 'recommend' has no version 'v9': it has v1, v2"),
        ("/v2/models/ring.encode/versions/v2", "model 'ring.encode' has no version 'v2': it has v1"),
    ],
)
def test_what_is_not_there(client: Client, path: str, said: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()) == (404, {"error": said})


def test_before_the_first_model(client: Client, engine: RingEngine) -> None:
    engine.infos = ()
    assert client.get("/v2/models").json() == {"models": []}
    assert refusal(client, "recommend", texts("user", "a"), status=503) == "the first model is still loading"


def test_repository_index(client: Client, engine: RingEngine) -> None:
    found = client.post("/v2/repository/index").json()
    assert found[:3] == [
        {"name": "recommend", "version": "v1", "state": "READY", "reason": ""},
        {"name": "recommend", "version": "v2", "state": "READY", "reason": ""},
        {"name": "recommend_history", "version": "v1", "state": "READY", "reason": ""},
    ]
    assert len(found) == 4 * (2 + 1 + 1)
    engine.why_not = "starting"
    assert client.post("/v2/repository/index", json={"ready": True}).json() == []
    assert client.post("/v2/repository/index", json={}).json()[0]["state"] == "UNAVAILABLE"
    response = client.post("/v2/repository/index", json={"ready": 1})
    assert (response.status_code, response.json()) == (400, {"error": "ready must be true or false"})


def test_a_run_is_loaded_again_or_by_its_own_name_and_unloaded(client: Client, engine: RingEngine) -> None:
    def send(model: str, what: str, body: Any = None) -> int:
        return client.post(f"/v2/repository/models/{model}/{what}", json=body).status_code

    def versions() -> dict[str, list[str]]:
        names = client.get("/v2/models").json()["models"]
        return {name: client.get(f"/v2/models/{name}").json()["versions"] for name in names}

    assert send("other", "load") == 200
    assert versions()["other.recommend"] == ["v3"]
    assert [send(model, "load", {}) for model in ("recommend", "other.similar", "tuesday")] == [200] * 3
    assert engine.loads == [("other", None), ("ring", None), ("other", None), ("tuesday", None)]
    assert "tuesday.recommend" in versions()
    assert send("tuesday", "unload", {"parameters": {"unload_dependents": True}}) == 200
    assert "tuesday.recommend" not in versions()
    assert [send("tuesday", "unload"), send("none", "unload"), send("-", "load")] == [404] * 3
    for model, what, body, words in (
        ("ring", "unload", None, "is the default"),
        ("damaged", "load", None, "not a run folder"),
        ("other", "load", {"parameters": {"config": "{}"}}, "unknown parameter 'config'"),
        ("other", "unload", {"parameters": 5}, "parameters must be an object"),
    ):
        response = client.post(f"/v2/repository/models/{model}/{what}", json=body)
        assert response.status_code == 400
        assert words in response.json()["error"]
    assert len(engine.loads) == 4


def test_the_index_names_runs_that_are_not_loaded(engine: RingEngine, tmp_path: Path) -> None:
    for name in ("ring", "tuesday", "notes"):
        (tmp_path / name).mkdir()
    for name in ("ring", "tuesday"):
        (tmp_path / name / "run.json").write_text("{}")
    client = Client(engine, models_dir=str(tmp_path))
    found = client.post("/v2/repository/index").json()
    assert found[-1] == {"name": "tuesday", "state": "UNAVAILABLE", "reason": "not loaded"}
    assert [own["state"] for own in found].count("UNAVAILABLE") == 1
    ready = client.post("/v2/repository/index", json={"ready": True}).json()
    assert ready == found[:-1]


def test_statistics_count_what_was_asked(client: Client) -> None:
    for _ in range(2):
        ask(client, "recommend", texts("user", "apple", "pear", "plum"))
    ask(client, "recommend", texts("user", "apple"))
    refusal(client, "recommend", texts("user", "busy"), status=503)
    first, second = client.get("/v2/models/recommend/stats").json()["model_stats"]
    assert (first["name"], first["version"]) == ("recommend", "v1")
    assert (first["inference_count"], first["execution_count"]) == (7, 3)
    assert first["last_inference"] > 1_700_000_000_000  # milliseconds
    parts = first["inference_stats"]
    assert {name: part["count"] for name, part in parts.items()} == {
        "success": 3,
        "fail": 1,
        "queue": 3,
        "compute_input": 3,
        "compute_infer": 3,
        "compute_output": 3,
    }
    inner = ("queue", "compute_input", "compute_infer", "compute_output")
    assert parts["success"]["ns"] == sum(parts[name]["ns"] for name in inner)
    assert parts["queue"]["ns"] == 3000  # a microsecond each, as the engine says
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in first["batch_stats"]] == [
        (1, 1),
        (3, 2),
    ]
    assert second["inference_count"] == 0
    every = client.get("/v2/models/stats").json()["model_stats"]
    assert every[:2] == [first, second]
    assert len(every) == 4 * (2 + 1 + 1)
    assert client.get("/v2/models/recommend/versions/v2/stats").json()["model_stats"][0]["version"] == "v2"


@pytest.fixture
def binary(client: Client) -> Callable[[bytes, bytes, str | None], Any]:
    def post(text: bytes, raw: bytes, header: str | None = None) -> Any:
        headers = {HEADER_LENGTH: str(len(text)) if header is None else header}
        return client.post("/v2/models/recommend/infer", content=text + raw, headers=headers)

    return post


def _binary_request(size: Any = 9, shape: Any = (1,), **fields: Any) -> bytes:
    entry = {
        "name": "user",
        "datatype": "BYTES",
        "shape": list(shape),
        "parameters": {"binary_data_size": size},
    }
    return json.dumps({"inputs": [entry], **fields}).encode()


APPLE = b"\x05\x00\x00\x00apple"


def test_bytes_in_bytes_out(binary: Callable[..., Any]) -> None:
    response = binary(_binary_request(parameters={"binary_data_output": True, "k": 2}), APPLE)
    assert response.headers["content-type"] == "application/octet-stream"
    n_json = int(response.headers[HEADER_LENGTH])
    outputs = json.loads(response.content[:n_json])["outputs"]
    assert [(entry["name"], entry["parameters"]["binary_data_size"]) for entry in outputs] == [
        ("item", 4 + 4 + 4 + 4),
        ("score", 8),
        ("count", 4),
    ]
    assert response.content[n_json:] == (
        b"\x04\x00\x00\x00pear\x04\x00\x00\x00plum"
        + b"\x00\x00\x80\x3f\x00\x00\x00\x3f"
        + b"\x02\x00\x00\x00"
    )


def test_bytes_in_json_out(binary: Callable[..., Any]) -> None:
    response = binary(_binary_request(outputs=[{"name": "count"}]), APPLE)
    assert response.headers["content-type"] == "application/json"
    assert HEADER_LENGTH not in response.headers
    assert response.json()["outputs"] == [{"name": "count", "datatype": "INT32", "shape": [1], "data": [4]}]


def test_spoiled_requests_are_refused_in_a_line(binary: Callable[..., Any]) -> None:
    """Every byte of a request changed, cut there, or doubled: an answer or a line, never a fault."""
    text = _binary_request()
    whole_request = text + APPLE
    statuses = set()
    for place in range(0, len(whole_request), 3):
        for spoiled in (
            whole_request[:place],
            whole_request[:place] + bytes([whole_request[place] ^ 0x41]) + whole_request[place + 1 :],
            whole_request[:place] + whole_request[place : place + 1] + whole_request[place:],
        ):
            response = binary(spoiled, b"", str(len(text)))
            statuses.add(response.status_code)
            if response.status_code != 200:
                assert list(response.json()) == ["error"]
    assert statuses == {200, 400}


def test_four_mebibytes_of_history(client: Client, engine: RingEngine) -> None:
    n_events, rows = (4 * 2**20 - 1024) // 9 // 50 * 50, 50
    history = APPLE * n_events
    lengths = np.full(rows, n_events // rows, dtype="<i8").tobytes()
    text = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": datatype,
                    "shape": [size],
                    "parameters": {"binary_data_size": len(raw)},
                }
                for name, datatype, size, raw in (
                    ("history", "BYTES", n_events, history),
                    ("lengths", "INT64", rows, lengths),
                )
            ],
            "parameters": {"k": 1},
        }
    ).encode()
    response = client.post(
        "/v2/models/recommend_history/infer",
        content=text + history + lengths,
        headers={HEADER_LENGTH: str(len(text))},
    )
    assert response.status_code == 200, response.text
    assert [len(each.history or ()) for each in engine.asked] == [n_events // rows] * rows
    more = client.post("/v2/models/recommend_history/infer", content=text + bytes(4 * 2**20))
    assert (more.status_code, list(more.json())) == (413, ["error"])


def test_without_a_key_nothing_but_the_server_itself(engine: RingEngine, tmp_path: Path) -> None:
    secret = new_key(tmp_path / "keys.toml", "reader", ("read",))
    client = Client(engine, keys=str(tmp_path / "keys.toml"))
    for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    assert client.get("/v2/models").status_code == 401
    response = client.post("/v2/models/recommend/infer", json={"inputs": [texts("user", "apple")]})
    assert (response.status_code, list(response.json())) == (401, ["error"])
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/v2/models", headers=headers).status_code == 200
    response = client.post("/v2/repository/models/recommend/load", headers=headers)
    assert (response.status_code, response.json()) == (
        403,
        {"error": "the key 'reader' has no scope 'admin'"},
    )
