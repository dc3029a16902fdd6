"""Recommendations over HTTP: answers, and what is refused, before any model is there."""

import asyncio
from typing import Any

import pytest

from recsys.errors import ArgumentError, IndexServerError, RecsysError
from recsys.events.store import Event, StoreFullError
from recsys.serving.engine.asking import BusyError, DeadlineError
from recsys.serving.http.app import create_app
from recsys.serving.http.service import Service
from tests.serving.doubles import MemoryEngine, asking, memory_service


def ask(service: Service, method: str, path: str, **given: Any) -> Any:
    """One request; the response."""

    async def run() -> Any:
        async with asking(service) as client:
            return await client.request(method, path, **given)

    return asyncio.run(run())


def post(body: Any, service: Service | None = None) -> Any:
    return ask(service or memory_service(), "POST", "/v1/recommend", json=body)


def test_an_answer_has_items_in_order_and_what_was_read() -> None:
    service = memory_service()
    assert service.events is not None
    service.events.append([Event(1, 4, 300), Event(1, 99, 310)])
    found = post({"user": 1, "history": [6], "k": 3}, service)
    assert found.status_code == 200
    body = found.json()
    assert [item["id"] for item in body["items"]] == [3, 5, 7]
    assert [item["rank"] for item in body["items"]] == [1, 2, 3]
    assert body["items"][0] == {"id": 3, "score": 1 / 3, "rank": 1, "title": "Title <3>"}
    assert body["history"] == {"events": 5, "encoded": 4, "unknown": [99]}
    assert (body["last_seq"], body["fallback"], body["model"], body["version"]) == (2, None, "default", "v1")
    assert body["request_id"] == found.headers["x-request-id"]


def test_filters_reach_the_engine() -> None:
    body = {
        "history": [1],
        "k": 4,
        "allow": [2, 4, 6, 7],
        "deny": [4],
        "category": ["even"],
        "exclude_seen": False,
    }
    assert [item["id"] for item in post(body).json()["items"]] == [2, 6]


def test_candidates_are_ranked_all_of_them() -> None:
    def ranked(**more: Any) -> list[int]:
        body = {"user": 1, "candidates": [9, 2, 14, *range(3, 13)]} | more
        return [item["id"] for item in post(body).json()["items"]]

    assert ranked() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14]
    assert ranked(k=3) == [2, 3, 4]
    assert ranked(exclude_seen=True)[0] == 3
    assert ranked(category=["odd"], deny=[5]) == [3, 7, 9, 11]
    for body, field in (
        ({"candidates": [1], "allow": [1]}, "candidates"),
        ({"candidates": []}, "candidates"),
        ({"candidates": ["i1"]}, "candidates"),
        ({"candidates": [1] * 1001}, "candidates"),
    ):
        found = post({"user": 1} | body)
        assert (found.status_code, found.json()["field"]) == (422, field)


def test_ids_keep_the_type_of_the_log() -> None:
    body = post({"history": ["i1"], "k": 2}, memory_service(text_ids=True)).json()
    assert [item["id"] for item in body["items"]] == ["i2", "i3"]


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({}, "user", "send a user"),
        ({"user": True}, "user", "whole number or text"),
        ({"user": 1.0}, "user", "whole number or text"),
        ({"user": "1"}, "user", "whole numbers"),
        ({"user": 2**63}, "user", "less than"),
        ({"user": ""}, "user", "at least 1"),
        ({"user": "x" * 257}, "user", "at most 256"),
        ({"user": "é" * 129}, "user", "256 bytes"),
        ({"user": "a\x00"}, "user", "pattern"),
        ({"history": [1, "2"]}, "history", "'2'"),
        ({"history": [1, None]}, "history[1]", "whole number or text"),
        ({"history": [1] * 10_001}, "history", "10000"),
        ({"history": [1], "times": [1, 2]}, "times", "2 for 1"),
        ({"user": 1, "times": [1]}, "times", "1 for 0"),
        ({"user": 1, "k": 0}, "k", "greater than or equal to 1"),
        ({"user": 1, "k": 1001}, "k", "1000"),
        ({"user": 1, "k": "5"}, "k", "integer"),
        ({"user": 1, "k": True}, "k", "integer"),
        ({"user": 1, "interests": 17}, "interests", "16"),
        ({"user": 1, "deny": list(range(10_001))}, "deny", "10000"),
        ({"user": 1, "exclude_seen": 1}, "exclude_seen", "boolean"),
        ({"user": 1, "topk": 3}, "topk", "not a field"),
        ({"user": 1, "category": ["strange"]}, "category", "strange"),
        ({"user": 1, "model": "other"}, "model", "not in service"),
        ([1], None, "dictionary"),
    ],
)
def test_a_field_that_is_not_accepted_is_named(body: Any, field: str | None, detail: str) -> None:
    found = post(body)
    assert found.status_code == 422
    assert found.headers["content-type"] == "application/problem+json"
    said = found.json()
    assert said.get("field") == field
    assert detail in said["detail"]
    assert said["status"] == 422
    assert said["type"].startswith("urn:recsys:problem:")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BusyError("the queue is full"), 503, "busy"),
        (IndexServerError("http://h: cannot be reached"), 503, "index-unavailable"),
        (DeadlineError("2 s are over"), 504, "deadline"),
        (StoreFullError("no room"), 507, "store-full"),
        (ArgumentError("at '25:00': no time"), 422, "argument"),
        (RecsysError("/runs/secret: torn"), 500, "fault"),
    ],
)
def test_errors_of_the_engine_have_their_status(error: RecsysError, status: int, kind: str) -> None:
    service = memory_service()
    assert isinstance(service.engine, MemoryEngine)
    service.engine.fails = error
    found = post({"user": 1}, service)
    assert found.status_code == status
    assert found.json()["type"] == f"urn:recsys:problem:{kind}"
    assert ("retry-after" in found.headers) == (status == 503)
    if status == 500:
        assert "secret" not in found.text
    else:
        assert str(error) in found.json()["detail"]


def test_a_fault_is_an_answer_without_its_reason() -> None:
    service = memory_service()
    assert isinstance(service.engine, MemoryEngine)
    service.engine.fails = ZeroDivisionError("secret")
    found = post({"user": 1}, service)
    assert found.status_code == 500
    assert found.headers["content-type"] == "application/problem+json"
    assert "secret" not in found.text
    assert "Traceback" not in found.text


def test_nothing_is_computed_for_a_client_that_has_left() -> None:
    service = memory_service()
    cancelled = asyncio.Event()

    async def forever(_: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    service.engine.recommend = forever  # type: ignore[method-assign, assignment]
    sent: list[Any] = []

    async def run() -> None:
        body = b'{"user": 1}'
        messages = [
            {"type": "http.request", "body": body, "more_body": False},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/recommend",
            "raw_path": b"/v1/recommend",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        }
        await asyncio.wait_for(create_app(service)(scope, receive, send), 10)
        await asyncio.wait_for(cancelled.wait(), 10)

    asyncio.run(run())
    assert sent == []


def test_a_batch_answers_each_by_itself() -> None:
    requests = [{"user": 1, "k": 1}, {"history": ["x"]}, {"user": 2, "category": ["strange"]}, {"user": 2}]
    found = ask(memory_service(), "POST", "/v1/recommend/batch", json={"requests": requests})
    assert found.status_code == 200
    results = found.json()["results"]
    assert results[0]["items"][0]["id"] == 3
    assert (results[1]["status"], results[1]["field"]) == (422, "history")
    assert (results[2]["status"], results[2]["field"]) == (422, "category")
    assert results[3]["items"][0]["id"] == 1


@pytest.mark.parametrize("count", [0, 257])
def test_a_batch_has_a_size(count: int) -> None:
    found = ask(memory_service(), "POST", "/v1/recommend/batch", json={"requests": [{"user": 1}] * count})
    assert (found.status_code, found.json()["field"]) == (422, "requests")


def test_a_user_of_the_path_has_the_type_of_the_log() -> None:
    path = "/v1/users/{}/recommendations"
    found = ask(memory_service(), "GET", path.format(1) + "?k=2&category=odd")
    assert [item["id"] for item in found.json()["items"]] == [3, 5]
    for user in ("x", "01", "1.0", "+1", "9" * 30, "77"):
        found = ask(memory_service(), "GET", path.format(user))
        assert found.status_code == 404, user
    text = memory_service(text_ids=True)
    assert ask(text, "GET", path.format("u1") + "?k=1").json()["items"][0]["id"] == "i3"
    found = ask(memory_service(), "GET", path.format(1) + "?k=0")
    assert (found.status_code, found.json()["field"]) == (422, "k")


def test_before_a_model_is_loaded_requests_are_refused_and_the_process_lives() -> None:
    service = memory_service()
    assert isinstance(service.engine, MemoryEngine)
    service.engine.loaded = False
    assert post({"user": 1}, service).status_code == 503
    assert ask(service, "GET", "/livez").status_code == 200
    assert ask(service, "GET", "/readyz").status_code == 503
    assert ask(service, "GET", "/startupz").status_code == 503
    service.engine.loaded = True
    assert ask(service, "GET", "/startupz").status_code == 200


def test_health_tells_ending_a_dead_thread_and_a_full_disk_apart() -> None:
    service = memory_service()
    assert isinstance(service.engine, MemoryEngine)
    assert ask(service, "GET", "/readyz").json() == {"status": "ok"}
    service.events_writable = False
    assert ask(service, "GET", "/readyz").json()["status"] == "degraded"
    service.draining = True
    found = ask(service, "GET", "/readyz")
    assert (found.status_code, found.json()["detail"]) == (503, "ending")
    assert ask(service, "GET", "/livez").status_code == 200
    service.engine.age = 61.0
    assert ask(service, "GET", "/livez").status_code == 503


def test_columns_and_context_reach_the_engine() -> None:
    service = memory_service()
    engine: Any = service.engine
    context = {"device": "phone", "age": 30}
    body = {"history": [1, 2], "columns": {"action": ["view", None]}, "context": context}
    assert post(body, service).status_code == 200
    assert (engine.asked[-1].columns, engine.asked[-1].context) == ({"action": ["view", None]}, context)
    found = ask(service, "GET", "/v1/users/1/recommendations?context=device=tv%3Dnew&context=age=30")
    assert found.status_code == 200
    assert engine.asked[-1].context == {"device": "tv=new", "age": "30"}
    assert ask(service, "GET", "/v1/users/1/recommendations").status_code == 200
    assert engine.asked[-1].context is None
    both = {"requests": [{"user": 1, "context": {"device": "tv"}}, {"user": 1, "context": {"devise": "tv"}}]}
    first, second = ask(service, "POST", "/v1/recommend/batch", json=both).json()["results"]
    assert "items" in first
    assert (second["status"], second["field"]) == (422, "context")


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (
            {"user": 1, "context": {"devise": "x"}},
            "context",
            "'devise' is no column that the model reads: it reads",
        ),
        ({"user": 1, "context": {"action": "x"}}, "context", "device, age"),
        ({"history": [1], "columns": {"device": ["x"]}}, "columns", "it reads action"),
        (
            {"history": [1, 2], "columns": {"action": ["x"]}},
            "columns",
            "has 1 values for 2 events of history",
        ),
        ({"user": 1, "columns": {"action": ["x"]}}, "columns", "has 1 values for 0 events of history"),
        (
            {"user": 1, "context": {"device": ["x"]}},
            "context.device",
            "text, a number, true or false, or null",
        ),
        ({"user": 1, "context": {"device": "x" * 257}}, "context.device", ""),
        ({"user": 1, "context": ["device"]}, "context", "context: has to be an object"),
        ({"history": [1], "columns": {"action": "x"}}, "columns.action", ""),
    ],
)
def test_columns_that_nobody_reads_are_refused(body: dict[str, Any], field: str, said: str) -> None:
    found = post(body)
    assert found.status_code == 422
    assert found.json()["field"].startswith(field)
    assert said in found.json()["detail"]


def test_a_context_of_a_path_is_column_and_value() -> None:
    found = ask(memory_service(), "GET", "/v1/users/1/recommendations?context=device")
    assert (found.status_code, found.json()["field"]) == (422, "context")
    assert "write it as column=value" in found.json()["detail"]
