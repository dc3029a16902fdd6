"""What a request leaves behind: one line and its counts, without keys, bodies or names of users."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import RecsysError
from recsys.serving.engine.observing import Observer
from recsys.serving.http.keys import new_key
from recsys.serving.http.metrics import Metrics
from recsys.serving.http.service import Service
from tests.serving.doubles import MemoryEngine, asking, memory_service


def rows(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def ask(service: Service, *requests: tuple[str, str, dict[str, Any]]) -> None:
    async def run() -> None:
        async with asking(service) as client:
            for method, path, given in requests:
                await client.request(method, path, **given)

    asyncio.run(run())


def test_a_request_is_one_line(lines: io.StringIO) -> None:
    headers = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "x-request-id": "order-7",
    }
    ask(
        memory_service(),
        ("POST", "/v1/recommend", {"json": {"user": 1, "history": [5], "k": 3}, "headers": headers}),
    )
    (row,) = rows(lines)
    assert {name: row[name] for name in ("level", "request_id", "route", "method", "status", "k")} == {
        "level": "info",
        "request_id": "order-7",
        "route": "/v1/recommend",
        "method": "POST",
        "status": 200,
        "k": 3,
    }
    assert (row["trace_id"], row["parent_id"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    assert (row["model"], row["version"], row["batch"], row["queue_ms"]) == ("default", "v1", 1, 0.5)
    assert row["ms"] >= 0
    assert "fallback" not in row


@pytest.mark.parametrize("odd", ["a b", "a\tb", 'a"b', "x" * 129, "é", "{}"], ids=range(6))
def test_an_odd_request_id_is_not_taken_over(lines: io.StringIO, odd: str) -> None:
    ask(memory_service(), ("GET", "/v1/users/1/recommendations", {"headers": {"x-request-id": odd.encode()}}))
    (row,) = rows(lines)
    assert len(row["request_id"]) == 32
    assert row["request_id"].isalnum()


def test_a_trace_names_a_request_that_has_no_name_of_its_own(lines: io.StringIO) -> None:
    trace = "0" * 31 + "1"
    path = "/v1/users/1/recommendations"
    ask(memory_service(), ("GET", path, {"headers": {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}}))
    ask(memory_service(), ("GET", path, {"headers": {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}}))
    named, drawn = rows(lines)
    assert named["request_id"] == trace
    assert drawn["request_id"] != "0" * 32


def test_users_are_hashed_with_the_salt_unless_they_may_be_named(lines: io.StringIO) -> None:
    request = ("POST", "/v1/recommend", {"json": {"user": "u1"}})
    for settings in ({}, {"log_users": True}):
        ask(memory_service(text_ids=True, **settings), request)
    hashed, named = rows(lines)
    assert named["user"] == "u1"
    assert len(hashed["user"]) == 16
    assert hashed["user"] != "u1"


def test_neither_keys_nor_users_nor_bodies_are_in_the_log(lines: io.StringIO, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    secret = new_key(file, "shop", ("read",))
    service = memory_service(text_ids=True, keys=str(file))
    key = {"headers": {"authorization": f"Bearer {secret}"}}
    wrong = {"headers": {"x-api-key": "wrong-secret-5"}}
    ask(
        service,
        ("POST", "/v1/recommend", {"json": {"user": "unnamed-user", "history": ["i1", 5]}} | key),
        ("POST", "/v1/recommend", {"json": {"user": "unnamed-user"}} | wrong),
        ("GET", "/v1/users/unnamed-user/recommendations?k=0", key),
        ("GET", "/v1/users/u1/recommendations", key),
        ("POST", "/v1/recommend", {"content": b'{"user": "unnamed-user", NaN'} | key),
    )
    assert [row["status"] for row in rows(lines)] == [422, 401, 422, 200, 415]
    text = lines.getvalue()
    for hidden in (secret, "wrong-secret-5", "unnamed-user", "i1"):
        assert hidden not in text
    assert [row.get("key") for row in rows(lines)] == ["shop", None, "shop", "shop", "shop"]


def test_a_fault_has_its_reason_in_the_log_alone(lines: io.StringIO) -> None:
    service = memory_service()
    assert isinstance(service.engine, MemoryEngine)
    service.engine.fails = ZeroDivisionError("why")
    ask(service, ("POST", "/v1/recommend", {"json": {"user": 1}}))
    service.engine.fails = RecsysError("torn\nfile")
    ask(service, ("POST", "/v1/recommend", {"json": {"user": 1}}))
    fault, first, second = rows(lines)
    assert "ZeroDivisionError: why" in fault["exc_info"]
    assert fault["request_id"] == first["request_id"]
    assert (first["level"], first["status"], first["error"]) == ("error", 500, "ZeroDivisionError: why")
    assert second["error"] == "torn\\nfile"


def test_probes_leave_no_line_while_all_is_well(lines: io.StringIO) -> None:
    service = memory_service()
    ask(service, ("GET", "/livez", {}), ("GET", "/readyz", {}))
    assert rows(lines) == []
    service.draining = True
    ask(service, ("GET", "/readyz", {}))
    assert [row["status"] for row in rows(lines)] == [503]


def sample(service: Service, name: str, **labels: str) -> float | None:
    return service.metrics.registry.get_sample_value(f"recsys_{name}", labels)


def test_requests_are_counted_by_route_not_by_path() -> None:
    service = memory_service()
    path = "/v1/users/{user}/recommendations"
    ask(
        service,
        ("GET", path.format(user=1), {}),
        ("GET", path.format(user=2), {}),
        ("GET", path.format(user="x"), {}),
        ("GET", "/" + "a" * 50, {}),
        ("BREW", "/livez", {}),
    )
    assert sample(service, "http_requests_total", route=path, method="GET", status="200") == 2
    assert sample(service, "http_requests_total", route=path, method="GET", status="404") == 1
    assert sample(service, "http_requests_total", route="unmatched", method="GET", status="404") == 1
    assert sample(service, "http_request_duration_seconds_count", route=path) == 3
    assert sample(service, "http_in_flight") == 0
    assert b'method="BREW"' not in service.metrics.expose()


def test_what_the_engine_tells_is_counted() -> None:
    metrics = Metrics()
    observer: Observer = metrics
    observer.batch(3, 120)
    observer.waited(0.002)
    observer.stage("encode", 0.01)
    observer.cache(2, 1, 1, 512)
    observer.fallback("popular")
    observer.unknown_items(4)
    observer.rejected("queue_full")
    observer.late()
    observer.failed(ValueError())
    observer.searched({"exact": 5})
    observer.searched({"exact": 3, "scan": 1})
    observer.loaded("a", "v1", "ok")
    observer.loaded("a", "v2", "ok")
    observer.loaded("a", "v3", "refused")
    observer.shadowed("b", 10, 0.5)
    metrics.events(5, 2, 1, 0.004)
    metrics.sample(waiting=9, heartbeat=0.25, free_bytes=1000, answer_bytes=4000)
    found = metrics.registry.get_sample_value
    assert found("recsys_batch_requests_sum") == 3
    assert (found("recsys_state_cache_bytes"), found("recsys_answer_cache_bytes")) == (512, 4000)
    assert found("recsys_batch_events_sum") == 120
    assert found("recsys_queue_wait_seconds_count") == 1
    assert found("recsys_stage_seconds_sum", {"stage": "encode"}) == 0.01
    assert found("recsys_state_cache_hits_total") == 2
    assert found("recsys_state_cache_misses_total") == 1
    assert found("recsys_state_cache_evictions_total") == 1
    assert found("recsys_fallback_total", {"reason": "popular"}) == 1
    assert found("recsys_unknown_items_total") == 4
    assert found("recsys_rejected_total", {"reason": "queue_full"}) == 1
    assert found("recsys_deadline_total") == 1
    assert found("recsys_compute_failures_total") == 1
    assert found("recsys_index_queries_total", {"how": "exact"}) == 8
    assert found("recsys_model_info", {"name": "a", "version": "v1"}) == 0
    assert found("recsys_model_info", {"name": "a", "version": "v2"}) == 1
    assert found("recsys_model_info", {"name": "a", "version": "v3"}) is None
    assert found("recsys_model_loads_total", {"result": "refused"}) == 1
    assert found("recsys_shadow_overlap_sum", {"k": "10"}) == 0.5
    assert found("recsys_events_total", {"result": "accepted"}) == 5
    assert found("recsys_events_total", {"result": "duplicate"}) == 2
    assert found("recsys_events_total", {"result": "rejected"}) == 1
    assert found("recsys_event_commit_seconds_count") == 1
    assert found("recsys_queue_requests") == 9
    assert found("recsys_compute_heartbeat_seconds") == 0.25
    assert found("recsys_events_disk_free_bytes") == 1000
