"""Clients that others wrote, against a service on a socket."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.serving.live import live

triton = pytest.importorskip("tritonclient.http", exc_type=ImportError)


@pytest.fixture(scope="module")
def fruit() -> Iterator[str]:
    with live("tests.serving.oip.shop:fruit_service") as url:
        yield url


@pytest.fixture(scope="module")
def numbers() -> Iterator[str]:
    with live("tests.serving.oip.shop:number_service") as url:
        yield url


def connected(url: str) -> Iterator[Any]:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    yield client
    client.close()


@pytest.fixture
def text_client(fruit: str) -> Iterator[Any]:
    yield from connected(fruit)


@pytest.fixture
def number_client(numbers: str) -> Iterator[Any]:
    yield from connected(numbers)


def given(name: str, values: list[Any], datatype: str, *, binary: bool = True) -> Any:
    found = triton.InferInput(name, [len(values)], datatype)
    dtype = object if datatype == "BYTES" else np.dtype(datatype.lower())
    found.set_data_from_numpy(np.array(values, dtype=dtype), binary_data=binary)
    return found


def test_triton_asks_what_there_is(text_client: Any) -> None:
    assert text_client.is_server_live()
    assert text_client.is_server_ready()
    assert text_client.is_model_ready("recommend")
    assert text_client.is_model_ready("ring.recommend", "v1")
    assert not text_client.is_model_ready("none")
    assert "binary_tensor_data" in text_client.get_server_metadata()["extensions"]
    assert text_client.get_model_metadata("similar")["inputs"] == [
        {"name": "item", "datatype": "BYTES", "shape": [-1]}
    ]
    assert text_client.get_model_repository_index()[0]["name"] == "recommend"


def test_triton_loads_and_unloads(fruit: str) -> None:
    client = triton.InferenceServerClient(fruit.removeprefix("http://"))
    client.load_model("tuesday")
    assert client.is_model_ready("tuesday.recommend")
    client.unload_model("tuesday")
    assert not client.is_model_ready("tuesday.recommend")
    with pytest.raises(triton.InferenceServerException, match=r"\[400\] model 'ring' is the default"):
        client.unload_model("ring")
    client.close()


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [None, True, False])
def test_triton_with_text_ids(text_client: Any, binary_in: bool, binary_out: bool | None) -> None:
    wanted = (
        None
        if binary_out is None  # the client's own default: everything as bytes
        else [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("item", "score")]
    )
    users = given("user", [b"fig", "kiwi"], "BYTES", binary=binary_in)
    found = text_client.infer("recommend", [users], outputs=wanted, request_id="7", parameters={"k": 2})
    assert found.get_response()["id"] == "7"
    items = np.array([["kiwi", "apple"], ["apple", "pear"]], dtype="S" if binary_out is not False else "U")
    assert found.as_numpy("item").tolist() == items.tolist()  # of JSON the client makes text
    assert found.as_numpy("score").tolist() == [[1.0, 0.5], [1.0, 0.5]]
    assert found.as_numpy("score").dtype == np.float32
    if wanted is None:
        assert found.as_numpy("count").tolist() == [2, 2]


@pytest.mark.parametrize("binary", [True, False])
def test_triton_with_whole_ids_and_times(number_client: Any, binary: bool) -> None:
    inputs = [
        given("history", [10, 20, 50], "INT64", binary=binary),
        given("lengths", [2, 1], "INT64", binary=binary),
        given("times", [100, 200, 300], "INT64", binary=binary),
    ]
    found = number_client.infer("recommend_history", inputs, parameters={"k": 2, "at": 400})
    assert found.as_numpy("item").tolist() == [[30, 40], [10, 20]]
    assert found.as_numpy("item").dtype == np.int64
    assert number_client.infer("encode", inputs).as_numpy("state").tolist() == [[2, 300], [1, 300]]
    assert number_client.get_inference_statistics("encode")["model_stats"][0]["inference_count"] >= 2


def test_triton_with_nothing_asked(text_client: Any) -> None:
    found = text_client.infer("recommend", [given("user", [], "BYTES")], parameters={"k": 2})
    assert found.as_numpy("item").shape == (0, 2)


def test_triton_is_told_what_is_wrong(text_client: Any) -> None:
    with pytest.raises(
        triton.InferenceServerException, match=r"\[400\] unknown parameter 'K': this model takes k"
    ):
        text_client.infer("recommend", [given("user", ["fig"], "BYTES")], parameters={"K": 2})
    with pytest.raises(triton.InferenceServerException, match=r"\[404\] no model is called 'none'"):
        text_client.infer("none", [given("user", ["fig"], "BYTES")])
    with pytest.raises(triton.InferenceServerException, match=r"\[503\] the queue is full"):
        text_client.infer("recommend", [given("user", ["busy"], "BYTES")])
    with pytest.raises(
        triton.InferenceServerException, match=r"\[400\] path: not a run folder under the folder of --models"
    ):
        text_client.load_model("damaged")
    for algorithm in ("gzip", "deflate"):
        with pytest.raises(
            triton.InferenceServerException, match=r"\[415\] Content-Encoding is not accepted"
        ):
            text_client.infer(
                "recommend", [given("user", ["fig"], "BYTES")], request_compression_algorithm=algorithm
            )


def test_triton_sends_four_mebibytes(text_client: Any) -> None:
    rows, events = 40, 10_000  # the longest histories, 9 bytes an event
    inputs = [
        given("history", ["apple"] * (rows * events), "BYTES"),
        given("lengths", [events] * rows, "INT64"),
    ]
    found = text_client.infer("encode", inputs)
    assert found.as_numpy("state")[:, 0].tolist() == [events] * rows


def test_curl(fruit: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    asked = {"inputs": [{"name": "user", "datatype": "BYTES", "shape": [1], "data": ["fig"]}]}
    said = subprocess.run(
        [curl, "-sS", f"{fruit}/v2/models/recommend/infer", "-d", json.dumps(asked)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(said.stdout)["outputs"][2] == {
        "name": "count",
        "datatype": "INT32",
        "shape": [1],
        "data": [4],
    }


@pytest.mark.parametrize("binary", [True, False])
def test_kserve(fruit: str, binary: bool) -> None:
    kserve = pytest.importorskip("kserve", reason="KServe's client brings 67 packages, and is not among ours")
    requested = pytest.importorskip("kserve.protocol.infer_type").RequestedOutput
    user = kserve.InferInput("user", [1], "BYTES")
    user.set_data_from_numpy(np.array(["fig"], dtype=object), binary_data=binary)
    wanted = [requested(name, {"binary_data": binary}) for name in ("item", "score", "count")]
    request = kserve.InferRequest("recommend", [user], parameters={"k": 2}, request_outputs=wanted)

    async def ask() -> Any:
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2")) as client:
            assert await client.is_server_live(fruit)
            assert await client.is_server_ready(fruit)
            assert await client.is_model_ready(fruit, "recommend")
            return await client.infer(fruit, request, model_name="recommend")

    found = {output.name: output.as_numpy().tolist() for output in asyncio.run(ask()).outputs}
    assert found["score"] == [[1.0, 0.5]]
    assert found["count"] == [2]
