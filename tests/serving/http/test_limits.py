"""What is read of a request: sizes, times, media types, JSON; and the pages that describe the rest."""

import asyncio
import hashlib
import json
import re
from importlib.resources import files
from typing import Any

import httpx
import pytest

from recsys.serving.http.envelope import CSP
from recsys.serving.http.facts import PLACE, begin
from recsys.serving.http.limits import BODY_BYTES, LARGE_BODY_BYTES, BodyLimits
from tests.serving.doubles import asking, memory_service

JSON = {"content-type": "application/json"}


def ask(method: str, path: str, **given: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with asking(memory_service()) as client:
            return await client.request(method, path, **given)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"user": 1}', 200),
        (b'{"user": 1, "user": 2}', 200),
        (b'{"user": 1', 400),
        (b'{"user": NaN}', 400),
        (b'{"user": Infinity}', 400),
        (b'{"user": -Infinity}', 400),
        (b'{"user": 1} {}', 400),
        (b'{"user": "\\ud800"}', 400),
        (b'{"user": "\xed\xa0\x80"}', 400),
        (b'{"user": "\x00"}', 400),
        (b"\xff\xfe{\x00}\x00", 400),
        (b"[" * 100_000, 400),
        (b'{"user": ' + b"[" * 300 + b"]" * 300 + b"}", 400),
        (b'{"user": 1e400}', 422),
        (b'{"user": ' + b"9" * 4000 + b"}", 422),
        (b'{"user": ' + b"9" * 5000 + b"}", 400),
        (b'{"user": 9223372036854775808}', 422),
        (b"null", 422),
        (b"", 422),
    ],
    ids=range(19),
)
def test_a_body_is_json_or_refused(body: bytes, status: int) -> None:
    found = ask("POST", "/v1/recommend", content=body, headers=JSON)
    assert found.status_code == status
    if status != 200:
        assert found.headers["content-type"] == "application/problem+json"
        assert len(found.content) < 2000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        (JSON | {"content-encoding": "gzip"}, 415),
        (JSON | {"content-encoding": "identity"}, 200),
        (JSON | {"x-long": "x" * 20_000}, 431),
        (JSON | {"transfer-encoding": "chunked", "content-length": "11"}, 400),
        (JSON | {"content-length": "eleven"}, 400),
        (JSON | {"content-length": "-1"}, 400),
        (JSON | {"content-length": "9" * 30}, 413),
    ],
)
def test_headers_say_what_the_body_is(headers: dict[str, str], status: int) -> None:
    assert ask("POST", "/v1/recommend", content=b'{"user": 1}', headers=headers).status_code == status


def test_bodies_have_their_size_by_route() -> None:
    padding = b" " * BODY_BYTES
    found = ask("POST", "/v1/recommend", content=b'{"user": 1}' + padding, headers=JSON)
    assert found.status_code == 413
    assert found.headers["connection"] == "close"
    body = b'{"requests": [{"user": 1}]}'
    assert ask("POST", "/v1/recommend/batch", content=body + padding, headers=JSON).status_code == 200
    padding = b" " * LARGE_BODY_BYTES
    assert ask("POST", "/v1/recommend/batch", content=body + padding, headers=JSON).status_code == 413

    async def parts() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    # Without a Content-Length the parts are counted.
    assert ask("POST", "/v1/recommend", content=parts(), headers=JSON).status_code == 413
    assert ask("GET", "/v1/users/1/recommendations?at=" + "1" * 9000).status_code == 414


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the request was not read whole")

    async def run() -> None:
        first = True

        async def receive() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b"{", "more_body": True}
            await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/v1/recommend",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        scope[PLACE] = begin([])
        await BodyLimits(app, seconds=0.05)(scope, receive, send)

    asyncio.run(run())
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("length", ["4", "0" * 24 + "4"])
def test_a_body_in_parts_is_read_to_its_length(length: str) -> None:
    found: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append((await receive())["body"])

    async def run() -> None:
        parts = iter((b"[1", b",2"))

        async def receive() -> Any:
            # Past the last part it would wait for ever: here it fails.
            return {"type": "http.request", "body": next(parts), "more_body": True}

        headers = [(b"content-type", b"application/json"), (b"content-length", length.encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
        await BodyLimits(app)({**scope, PLACE: begin(headers)}, receive, None)

    asyncio.run(run())
    assert found == [b"[1,2"]


def test_every_answer_has_its_headers() -> None:
    for method, path in (("GET", "/livez"), ("GET", "/nothing"), ("POST", "/v1/recommend"), ("GET", "/docs")):
        found = ask(method, path)
        assert found.headers["content-security-policy"] == CSP
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["referrer-policy"] == "same-origin"
        assert len(found.headers["x-request-id"]) == 32
    assert ask("GET", "/livez").headers["cache-control"] == "no-store"


def test_the_api_is_described_with_examples() -> None:
    described = ask("GET", "/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    body = described["components"]["schemas"]["RecommendBody"]
    for example in body["examples"]:
        assert ask("POST", "/v1/recommend", json=example).status_code in (200, 422)
    assert ask("POST", "/v1/recommend", json=body["examples"][1]).status_code == 200
    for path, each in described["paths"].items():
        for method, route in each.items():
            assert route.get("summary"), (method, path)
            assert route.get("description"), (method, path)


def test_the_documentation_is_served_from_here() -> None:
    page = ask("GET", "/docs")
    assert page.status_code == 200
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page.text)
    assert "<script>" not in page.text
    for name in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        assert ask("GET", f"/{name}").status_code == 200, name
    assert ask("GET", "/docs/VENDORED.txt").status_code == 404
    assert ask("GET", "/docs/..%2Fapp.py").status_code == 404


def test_vendored_files_are_those_that_were_noted() -> None:
    folder = files("recsys.serving.http").joinpath("assets")
    noted = re.findall(r"([0-9a-f]{64})  (\S+)", folder.joinpath("VENDORED.txt").read_text())
    assert len(noted) == 2
    for digest, name in noted:
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest, name


def test_items_have_neighbours_and_a_name() -> None:
    assert ask("GET", "/v1/items/5").json() == {
        "item": 5,
        "title": "Title <5>",
        "category": ["odd"],
        "events": 95,
        "model": "default",
    }
    found = ask("GET", "/v1/items/5/similar?k=3").json()
    assert [each["id"] for each in found["items"]] == [4, 6, 3]
    for path in ("/v1/items/99", "/v1/items/x/similar", "/v1/items/99/similar"):
        assert ask("GET", path).status_code == 404
    assert ask("GET", "/v1/items/5/similar?k=1001").status_code == 422


def test_a_user_has_a_clock() -> None:
    found = ask("GET", "/v1/users/1/clock").json()
    assert found["user"] == 1
    assert [row["hour"] for row in found["hours"]] == list(range(24))
    assert json.dumps(found)
    assert ask("GET", "/v1/users/x/clock").status_code == 404
