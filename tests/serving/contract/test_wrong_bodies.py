"""Bodies that are no requests: each is refused with its status, in words, and the next one is answered."""

import asyncio
import gzip
import json
from collections.abc import Mapping
from typing import Any

import pytest

from recsys.serving.http.service import Service
from tests.serving.doubles import MemoryEngine, asking, memory_service

JSON = {"content-type": "application/json"}
ASK = '{"history": [1], "k": 3}'


def send(path: str, content: bytes, headers: Mapping[str, str] = JSON, service: Service | None = None) -> Any:
    """The answer to a body, and whether a good request after it is answered."""

    async def run() -> Any:
        async with asking(service or memory_service()) as client:
            found = await client.post(path, content=content, headers=dict(headers))
            after = await client.post("/v1/recommend", content=ASK, headers=JSON)
            assert after.status_code == 200
            return found

    return asyncio.run(run())


def deep(depth: int, inner: str = "1") -> bytes:
    return ("[" * depth + inner + "]" * depth).encode()


NOT_JSON = {
    "nothing": b"",
    "truncated": ASK[:-5].encode(),
    "two values": b"{} {}",
    "not a number": b'{"history": [1], "k": NaN}',
    "infinity": b'{"history": [1], "k": Infinity}',
    "nested 100,000 times": deep(100_000),
    "nested in a field": b'{"history": ' + deep(100_000) + b"}",
    "objects nested 50,000 times": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a lone surrogate": b'{"history": ["\\ud800"]}',
    "half a pair": b'{"history": ["\\udc00\\ud800"]}',
    "bytes that are no UTF-8": b'{"history": ["\xff\xfe"]}',
    "UTF-16": ASK.encode("utf-16"),
    "single quotes": b"{'history': [1]}",
    "a comment": b'{"history": [1] /* here */}',
    "a raw line end in a text": b'{"history": ["a\nb"]}',
}

NO_REQUEST = {
    "a list": b"[]",
    "null": b"null",
    "a text": b'"history"',
    "an empty object": b"{}",
    "unknown field": b'{"history": [1], "kk": 3}',
    "true as an id": b'{"history": [true]}',
    "a float as an id": b'{"history": [1.0]}',
    "an exponent that overflows": b'{"history": [1e400]}',
    "2**63": b'{"history": [9223372036854775808]}',
    "-2**63 - 1": b'{"history": [-9223372036854775809]}',
    "4,000 digits": b'{"history": [' + b"9" * 4000 + b"]}",
    "NUL in an id": b'{"history": ["a\\u0000b"]}',
    "NUL as user": b'{"user": "\\u0000"}',
    "an empty id": b'{"history": [""]}',
    "a long id": b'{"history": ["' + b"x" * 257 + b'"]}',
    "a long id of wide letters": '{{"history": ["{}"]}}'.format("\u20ac" * 90).encode(),
    "a list as an id": b'{"history": [[1]]}',
    "an object as user": b'{"user": {"$gt": ""}}',
    "k as text": b'{"history": [1], "k": "3"}',
    "k of 0": b'{"history": [1], "k": 0}',
    "k too large": b'{"history": [1], "k": 1001}',
    "k as a float": b'{"history": [1], "k": 3.0}',
    "k true": b'{"history": [1], "k": true}',
    "exclude_seen as text": b'{"history": [1], "exclude_seen": "false"}',
    "too long a history": json.dumps({"history": [1] * 10_001}).encode(),
    "too many to allow": json.dumps({"history": [1], "allow": [1] * 10_001}).encode(),
    "too many interests": b'{"history": [1], "interests": 17}',
    "a moment that is a list": b'{"history": [1], "at": [1]}',
    "times as floats": b'{"history": [1], "times": [1.5]}',
    "a category of NUL": b'{"history": [1], "category": ["\\u0000"]}',
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_not_json_is_a_400(name: str) -> None:
    found = send("/v1/recommend", NOT_JSON[name])
    assert found.status_code == (400 if NOT_JSON[name] else 422)
    assert found.headers["content-type"] == "application/problem+json"
    body = found.json()
    assert body["status"] == found.status_code
    assert 0 < len(body["detail"]) < 400
    assert "\n" not in body["detail"]


@pytest.mark.parametrize("name", NO_REQUEST)
def test_what_is_no_request_is_a_422_that_names_the_field(name: str) -> None:
    found = send("/v1/recommend", NO_REQUEST[name])
    assert found.status_code == 422, found.text
    body = found.json()
    assert 0 < len(body["detail"]) < 400
    # What came in is not thrown back: it may be a megabyte, or somebody's data.
    assert len(found.content) < 2500
    if name not in ("a list", "null", "a text"):
        assert body["field"], body


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/recommend/batch", "/v1/events"])
@pytest.mark.parametrize("name", ["truncated", "not a number", "nested 100,000 times", "a lone surrogate"])
def test_every_native_route_refuses_them_alike(path: str, name: str) -> None:
    assert send(path, NOT_JSON[name]).status_code == 400


@pytest.mark.parametrize("name", NOT_JSON)
def test_the_protocol_refuses_them_in_its_own_words(name: str) -> None:
    found = send("/v2/models/recommend/infer", NOT_JSON[name])
    assert found.status_code == 400
    assert list(found.json()) == ["error"]
    assert "\n" not in found.json()["error"]


@pytest.mark.parametrize("size", [2**20 + 1, 10 * 2**20])
def test_a_large_body_is_a_413_whatever_it_says_of_its_length(size: int) -> None:
    body = b'{"history": ["' + b"x" * size + b'"]}'
    assert send("/v1/recommend", body).status_code == 413
    # A client that names no length is counted as it sends.
    service = memory_service()

    async def chunks() -> Any:
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    async def run() -> Any:
        async with asking(service) as client:
            return await client.post("/v1/recommend", content=chunks(), headers=JSON)

    found = asyncio.run(run())
    assert found.status_code == 413
    assert found.headers["connection"] == "close"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "GZIP"])
@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/events", "/v2/models/recommend/infer"])
def test_what_is_compressed_is_not_opened(path: str, coding: str) -> None:
    bomb = gzip.compress(b"0" * 10**7)
    assert send(path, bomb, JSON | {"content-encoding": coding}).status_code == 415


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_body_of_another_kind_is_a_415(kind: str) -> None:
    assert send("/v1/recommend", ASK.encode(), {"content-type": kind}).status_code == 415


def test_of_a_key_that_is_there_twice_the_last_counts() -> None:
    found = send("/v1/recommend", b'{"history": [1], "k": 3, "k": 2}')
    assert found.status_code == 200
    assert len(found.json()["items"]) == 2


@pytest.mark.parametrize(
    "given",
    [
        "a\r\nset-cookie: x=1",
        "a\nb",
        "x" * 5000,
        "\x00",
        "<script>",
        "caf\u00e9",
        "",
        " ",
        "a b",
        "../../etc",
    ],
)
def test_a_name_of_a_request_does_not_get_into_headers_or_lines_as_it_is(given: str) -> None:
    async def run() -> Any:
        async with asking(memory_service()) as client:
            headers = [(b"content-type", b"application/json"), (b"x-request-id", given.encode())]
            return await client.post("/v1/recommend", content=ASK, headers=headers)

    found = asyncio.run(run())
    assert found.status_code == 200
    own = found.headers["x-request-id"]
    assert own.isascii()
    assert own.isprintable()
    assert 0 < len(own) <= 128
    assert not set(own) & set('<>"\\ \r\n')
    assert "set-cookie" not in found.headers
    assert found.json()["request_id"] == own


@pytest.mark.parametrize(
    "user",
    ["..%2f..%2fetc%2fpasswd", "%00", "%ff", "a" * 300, "%0d%0aset-cookie:x", "9" * 400, "-0", "1.0", "1e3"],
)
def test_paths_are_names_and_nothing_else(user: str) -> None:
    async def run() -> Any:
        async with asking(memory_service()) as client:
            return await client.get(f"/v1/users/{user}/recommendations")

    found = asyncio.run(run())
    assert found.status_code in (404, 422)
    assert "set-cookie" not in found.headers
    assert len(found.content) < 1500


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/recommend/batch", "/v2/models/recommend/infer"])
def test_a_crowded_service_reads_no_bodies(path: str) -> None:
    service = memory_service()
    engine = service.engine
    assert isinstance(engine, MemoryEngine)
    read: list[bytes] = []

    async def chunks() -> Any:
        read.append(b"{")
        yield b"{"

    async def run() -> Any:
        async with asking(service) as client:
            engine.why = "240 requests are waiting"
            found = await client.post(path, content=chunks(), headers=JSON)
            engine.why = None
            after = await client.post("/v1/recommend", content=ASK, headers=JSON)
            return found, after

    found, after = asyncio.run(run())
    assert found.status_code == 503
    assert found.headers["retry-after"]
    assert "240 requests are waiting: ask again in a second" in found.text
    assert not read
    assert not engine.asked[:-1]
    assert after.status_code == 200
