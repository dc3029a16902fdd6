"""The two busiest routes answer the same whether FastAPI is asked or not."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import ArgumentError
from recsys.serving.engine.asking import BusyError, DeadlineError
from recsys.serving.http import app as application
from recsys.serving.http.keys import new_key
from tests.serving.doubles import MemoryEngine, MemoryEvents, asking, memory_service

ASKED: dict[str, tuple[str, Any]] = {
    "answer": ("/v1/recommend", {"user": 1, "history": [5, 99], "k": 3}),
    "fallback": ("/v1/recommend", {"user": 77}),
    "nobody": ("/v1/recommend", {}),
    "unknown field": ("/v1/recommend", {"user": 1, "n": 3}),
    "wrong type": ("/v1/recommend", {"user": 1.0, "k": True}),
    "too many": ("/v1/recommend", {"user": 1, "k": 1001}),
    "kind of id": ("/v1/recommend", {"user": "1"}),
    "unknown model": ("/v1/recommend", {"user": 1, "model": "other"}),
    "list": ("/v1/recommend", [1]),
    "null": ("/v1/recommend", None),
    "large number": ("/v1/recommend", {"user": 2**70}),
    "times": ("/v1/recommend", {"history": [1], "times": [1, 2]}),
    "category": ("/v1/recommend", {"user": 1, "category": ["prime"]}),
    "events": (
        "/v1/events",
        {"events": [{"user": 1, "item": 5, "time": 9}, {"user": 1}, {"user": 1, "x": 2}]},
    ),
    "no events": ("/v1/events", {"events": []}),
    "odd events": ("/v1/events", {"events": [1]}),
    "missing": ("/v1/events", {}),
}


def _seen(stream: io.StringIO, path: str, content: bytes, service: Any, **headers: str) -> Any:
    """Status, headers, body and line of one answer, but for times."""

    async def run() -> Any:
        async with asking(service) as client:
            given = {"content-type": "application/json", "x-request-id": "r"} | headers
            return await client.post(path, content=content, headers=given)

    found = asyncio.run(run())
    row = json.loads(stream.getvalue().splitlines()[-1])
    return found.status_code, dict(found.headers), found.content, {**row, "ts": 0, "ms": 0}


@pytest.mark.parametrize("name", ASKED)
def test_bodies(name: str, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    path, body = ASKED[name]
    found = []
    for routes in (application.DIRECT, ()):
        monkeypatch.setattr(application, "DIRECT", routes)
        found.append(_seen(lines, path, json.dumps(body).encode(), memory_service(log_users=True)))
    assert found[0] == found[1]
    assert found[0][3]["route"] == path


@pytest.mark.parametrize("error", [ArgumentError("k: no"), BusyError("busy"), DeadlineError("late")])
def test_what_the_engine_refuses(
    error: Exception, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for routes in (application.DIRECT, ()):
        monkeypatch.setattr(application, "DIRECT", routes)
        service = memory_service(log_users=True)
        assert isinstance(service.engine, MemoryEngine)
        service.engine.fails = error
        found.append(_seen(lines, "/v1/recommend", b'{"user": 1}', service))
    assert found[0] == found[1]


def test_a_full_disk(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for routes in (application.DIRECT, ()):
        monkeypatch.setattr(application, "DIRECT", routes)
        service = memory_service(log_users=True)
        assert isinstance(service.events, MemoryEvents)
        service.events.full = True
        found.append(_seen(lines, "/v1/events", b'{"events": [{"user": 1, "item": 2}]}', service))
        assert not service.events_writable
    assert found[0] == found[1]
    assert found[0][0] == 507


@pytest.mark.parametrize(("path", "status"), [("/v1/recommend", 200), ("/v1/events", 403)])
def test_keys_and_their_scopes(
    path: str, status: int, tmp_path: Path, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = new_key(tmp_path / "keys.toml", "shop", ("read",))
    body = b'{"user": 1}' if path == "/v1/recommend" else b'{"events": []}'
    found = []
    for routes in (application.DIRECT, ()):
        monkeypatch.setattr(application, "DIRECT", routes)
        service = memory_service(log_users=True, keys=str(tmp_path / "keys.toml"))
        found += [_seen(lines, path, body, service, authorization=f"Bearer {own}") for own in (secret, "no")]
    assert found[:2] == found[2:]
    assert [each[0] for each in found[:2]] == [status, 401]
