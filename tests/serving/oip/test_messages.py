"""Requests and responses as bytes."""

import contextlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.serving.oip.errors import ProtocolError
from recsys.serving.oip.messages import InferRequest, OutputWanted, read_request, write_response
from recsys.serving.oip.tensors import Tensor, byte_array

USER = {"name": "user", "datatype": "BYTES", "shape": [1], "data": ["7"]}


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_a_request_of_json_and_bytes() -> None:
    text = (
        b'{"id":"a","parameters":{"k":3,"binary_data_output":true},"inputs":['
        b'{"name":"history","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":11}},'
        b'{"name":"extra","datatype":"INT64","shape":[1],"data":[5]},'
        b'{"name":"lengths","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}],'
        b'"outputs":[{"name":"item"},{"name":"score","parameters":{"binary_data":false}}]}'
    )
    raw = b"\x01\x00\x00\x00a\x02\x00\x00\x00bc" + b"\x02" + b"\x00" * 7
    found = read_request(text + raw, str(len(text)))
    assert (found.id, found.parameters, found.binary_output) == ("a", {"k": 3}, True)
    assert list(found.inputs["history"].values) == [b"a", b"bc"]
    assert found.inputs["extra"].values.tolist() == [5]
    assert found.inputs["lengths"].values.tolist() == [2]
    assert found.outputs == (OutputWanted("item", None), OutputWanted("score", False))


def test_a_request_of_json_alone() -> None:
    text = body(inputs=[{**USER, "parameters": None}], model_name="as KServe's client adds it")
    found = read_request(text, None)
    assert (found.id, found.parameters, found.outputs, found.binary_output) == (None, {}, (), False)
    assert read_request(text, str(len(text))).inputs["user"].values.tolist() == [b"7"]


def _with(**changes: Any) -> bytes:
    return body(inputs=[{**USER, **changes}])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "malformed JSON"),
        (b"\xff\xfe", "malformed JSON"),
        (b'{"inputs":[', "malformed JSON"),
        (b'{"inputs":[]}x', "malformed JSON"),
        (b'{"inputs":[NaN]}', "malformed JSON"),
        (b'{"id":"\\ud800","inputs":[]}', "malformed JSON"),
        (b"[" * 100_000, "malformed JSON: recursion limit exceeded"),
        (b'{"inputs":' * 100_000, "malformed JSON: recursion limit exceeded"),
        (b'{"inputs":[' + b"9" * 5000 + b"]}", "malformed JSON"),
        (b"[]", "the JSON of a request must be an object"),
        (b"{}", "inputs must be a list of objects"),
        (b'{"inputs":{}}', "inputs must be a list of objects"),
        (body(inputs=[USER] * 17), "17 inputs: 16 are the most"),
        (body(inputs=[USER, USER]), "input 'user' is there twice"),
        (body(inputs=["user"]), "each of inputs must be an object with a name"),
        (body(inputs=[{"name": 1}]), "each of inputs must be an object with a name"),
        (body(inputs=[USER], id=7), "id must be a string of at most 256 bytes"),
        (body(inputs=[USER], id="ä" * 129), "id must be a string of at most 256 bytes"),
        (body(inputs=[USER], parameters=[]), "parameters of request must be an object"),
        (
            body(inputs=[USER], parameters={"binary_data_output": 1}),
            "binary_data_output must be true or false",
        ),
        (body(inputs=[USER], outputs=[{"name": "a"}] * 2), "output 'a' is asked for twice"),
        (
            body(inputs=[USER], outputs=[{"name": "a", "parameters": {"binary_data": "yes"}}]),
            "output 'a': binary_data must be true or false",
        ),
        (
            body(inputs=[USER], outputs=[{"name": "a", "parameters": {"classification": 3}}]),
            "output 'a': parameter 'classification' is not supported",
        ),
        (_with(datatype=None), "input 'user': datatype must be a string"),
        (_with(data=None), "input 'user' must have either data or a binary_data_size"),
        (
            _with(parameters={"binary_data_size": 5}),
            "input 'user' must have either data or a binary_data_size",
        ),
        (
            _with(data=None, parameters={"binary_data_size": 5}),
            "input 'user' has a binary_data_size, the request no Inference-Header-Content-Length",
        ),
        (_with(parameters={"shared_memory_region": "a"}), "input 'user': shared memory is not supported"),
    ],
)
def test_malformed_json_is_one_line(text: bytes, said: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_request(text, None)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("size", "raw", "said"),
    [
        (5, b"", "binary_data_size is 5, the body has 0 bytes left"),
        (2**64, b"abcde", "binary_data_size is 18446744073709551616, the body has 5 bytes left"),
        (-1, b"abcde", "binary_data_size must be a number of bytes"),
        (True, b"a", "binary_data_size must be a number of bytes"),
        (5, b"\x01\x00\x00\x00ab", "1 bytes of the body belong to no input"),
    ],
)
def test_sizes_that_do_not_fit_the_body(size: Any, raw: bytes, said: str) -> None:
    text = _with(data=None, parameters={"binary_data_size": size})
    with pytest.raises(ProtocolError) as caught:
        read_request(text + raw, str(len(text)))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "must be a number of bytes"),
        ("-1", "must be a number of bytes"),
        ("1e3", "must be a number of bytes"),
        ("٣", "must be a number of bytes"),
        ("9" * 5000, "must be a number of bytes"),
        ("0", "raw binary requests are not supported"),
        ("1000", "Inference-Header-Content-Length is 1000, the body has 80 bytes"),
        ("10", "malformed JSON"),
    ],
)
def test_lengths_of_the_json_that_are_wrong(header: str, said: str) -> None:
    text = body(inputs=[USER])
    with pytest.raises(ProtocolError) as caught:
        read_request(text, header)
    assert said in str(caught.value)


@given(cut=st.integers(0, 400), put=st.binary(max_size=6), header=st.none() | st.integers(0, 400).map(str))
def test_a_spoiled_request_is_read_or_one_line(cut: int, put: bytes, header: str | None) -> None:
    text = _with(data=None, parameters={"binary_data_size": 5})
    whole = text + b"\x01\x00\x00\x007"
    spoiled = whole[:cut] + put + whole[cut + 1 :]
    for length in (header, str(len(text))):
        with contextlib.suppress(ProtocolError):
            for tensor in read_request(spoiled, length).inputs.values():
                assert len(tensor.values) == math.prod(tensor.shape)


OUTPUTS = (
    Tensor("item", "BYTES", (1, 2), byte_array([b"a", b"bc"])),
    Tensor("score", "FP32", (1, 2), np.array([0.5, 0.25], dtype=np.float32)),
)


def test_a_response_of_json() -> None:
    text, n_json = write_response({"model_name": "m", "id": "7"}, OUTPUTS, InferRequest({}))
    assert n_json is None
    assert json.loads(text) == {
        "model_name": "m",
        "id": "7",
        "outputs": [
            {"name": "item", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "bc"]},
            {"name": "score", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.25]},
        ],
    }


def test_a_response_of_bytes() -> None:
    text, n_json = write_response({"model_name": "m"}, OUTPUTS, InferRequest({}, binary_output=True))
    assert n_json is not None
    item, score = json.loads(text[:n_json])["outputs"]
    assert item == {
        "name": "item",
        "datatype": "BYTES",
        "shape": [1, 2],
        "parameters": {"binary_data_size": 11},
    }
    assert score["parameters"] == {"binary_data_size": 8}
    assert text[n_json:] == b"\x01\x00\x00\x00a\x02\x00\x00\x00bc" + b"\x00\x00\x00\x3f\x00\x00\x80\x3e"


def test_each_output_has_its_own_wish() -> None:
    asked = InferRequest({}, outputs=(OutputWanted("score", True), OutputWanted("item")))
    text, n_json = write_response({"model_name": "m"}, OUTPUTS, asked)
    score, item = json.loads(text[:n_json])["outputs"]
    assert score["parameters"] == {"binary_data_size": 8}
    assert item["data"] == ["a", "bc"]
    asked = InferRequest({}, outputs=(OutputWanted("score", False),), binary_output=True)
    assert write_response({"model_name": "m"}, OUTPUTS, asked)[1] is None


def test_an_output_that_is_not_there() -> None:
    with pytest.raises(ProtocolError, match="unexpected output 'scores': the model has item, score"):
        write_response({}, OUTPUTS, InferRequest({}, outputs=(OutputWanted("scores"),)))
