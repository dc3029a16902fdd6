"""Models over HTTP: what is loaded, what is refused, and that the engine is asked as the body says."""

import asyncio
from typing import Any

import httpx
import pytest

from recsys.errors import ArgumentError
from recsys.serving.http.service import Service
from tests.serving.doubles import MemoryEngine, asking, memory_service


def _send(service: Service, method: str, path: str, body: Any = None) -> httpx.Response:
    async def send() -> httpx.Response:
        async with asking(service) as client:
            return await client.request(method, path, json=body)

    return asyncio.run(send())


def test_models_are_listed() -> None:
    found = _send(memory_service(), "GET", "/v1/models")
    assert found.status_code == 200
    (only,) = found.json()["models"]
    assert (only["name"], only["version"], only["items"], only["weight"]) == ("default", "v1", 20, 1.0)


def test_a_run_is_loaded_under_a_name_with_its_shares() -> None:
    body = {"path": "tuesday", "weight": 10, "shadow": 2.5}
    found = _send(memory_service(), "POST", "/v1/models/default/load", body)
    assert found.status_code == 200
    assert {name: found.json()[name] for name in body} == body


def test_without_a_path_it_is_the_folder_of_the_name() -> None:
    found = _send(memory_service(), "POST", "/v1/models/tuesday/load", {})
    assert (found.status_code, found.json()["path"]) == (200, "/runs/tuesday")


def test_a_model_is_unloaded_unless_it_is_the_default() -> None:
    found = _send(memory_service(), "DELETE", "/v1/models/default")
    assert (found.status_code, found.json()["detail"]) == (422, "model 'default' is the default")
    assert _send(memory_service(), "DELETE", "/v1/models/other").status_code == 404


def test_a_run_that_is_refused_says_why() -> None:
    service = memory_service()
    assert isinstance(service.engine, MemoryEngine)
    service.engine.fails = ArgumentError("tuesday: damaged")
    found = _send(service, "POST", "/v1/models/default/load", {"path": "tuesday"})
    assert (found.status_code, found.json()["detail"]) == (422, "tuesday: damaged")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("default/load", {"path": 5}, 422),
        ("default/load", {"path": ""}, 422),
        ("default/load", {"path": "a", "weight": -1}, 422),
        ("default/load", {"path": "a", "weight": True}, 422),
        ("default/load", {"path": "a", "shadow": 101}, 422),
        ("default/load", {"path": "a", "more": 1}, 422),
        ("-x/load", {"path": "a"}, 422),
        ("%00/load", {"path": "a"}, 422),
        ("default/rollback", None, 422),
        ("other/rollback", None, 404),
    ],
)
def test_what_cannot_be_loaded_is_a_problem(path: str, body: Any, status: int) -> None:
    found = _send(memory_service(), "POST", f"/v1/models/{path}", body)
    assert found.status_code == status
    assert found.headers["content-type"] == "application/problem+json"
