"""Events over HTTP: each stored or rejected by itself; histories of log and store; erasure."""

import time

import pytest

from recsys.events.event_columns import ColumnValue
from recsys.events.store import Event, RawId
from recsys.serving.http.service import Service
from tests.serving.doubles import MemoryEvents, memory_service
from tests.serving.http.test_recommend import ask


def stored(service: Service, user: RawId) -> list[Event]:
    assert service.events is not None
    return [each.event for each in service.events.tail(user)]


def test_events_are_stored_and_duplicates_counted() -> None:
    service = memory_service()
    sent = [
        {"user": 5, "item": 7, "time": 100, "id": "a", "type": "view", "request_id": "r"},
        {"user": 5, "item": 8, "time": 90},
        {"user": 6, "item": 8, "time": 90, "id": "a"},
    ]
    answer = ask(service, "POST", "/v1/events", json={"events": sent})
    assert (answer.status_code, answer.json()) == (
        200,
        {"accepted": 2, "duplicates": 1, "rejected": [], "last_seq": 2},
    )
    assert stored(service, 5) == [Event(5, 8, 90), Event(5, 7, 100, "a", "view", "r")]
    again = ask(service, "POST", "/v1/events", json={"events": sent[:1]}).json()
    assert again == {"accepted": 0, "duplicates": 1, "rejected": [], "last_seq": 2}


def test_what_came_with_an_event_is_stored() -> None:
    service = memory_service()
    columns: dict[str, ColumnValue] = {"action": "buy", "price": 9.5, "gift": True, "place": None, "n": 3}
    body = {"events": [{"user": 5, "item": 7, "time": 100, "columns": columns}]}
    assert ask(service, "POST", "/v1/events", json=body).json()["accepted"] == 1
    assert stored(service, 5) == [Event(5, 7, 100, columns=columns)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"type": "x"}, "columns: 'type' is a name that logs have already"),
        ({"a": 2**63}, "columns: 'a' does not fit 64 bits"),
        ({"a": "x" * 300}, "columns.a"),
        ({"a": ["x"]}, "columns.a"),
        ("buy", "columns: "),
        (dict.fromkeys(map(str, range(33)), 1), "columns: "),
    ],
)
def test_columns_that_are_none_are_rejected(columns: object, said: str) -> None:
    service = memory_service()
    body = {"events": [{"user": 1, "item": 2, "columns": columns}]}
    (rejected,) = ask(service, "POST", "/v1/events", json=body).json()["rejected"]
    assert rejected["detail"].startswith(said)
    assert stored(service, 1) == []


def test_an_event_without_a_time_happens_now() -> None:
    service, before = memory_service(), int(time.time())
    ask(service, "POST", "/v1/events", json={"events": [{"user": 5, "item": 7}]})
    assert before <= stored(service, 5)[0].time <= time.time()


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        ({"item": 1}, "user: Field required"),
        ({"user": True, "item": 1}, "user: has to be a whole number or text"),
        ({"user": 1, "item": 1.0}, "item: has to be a whole number or text"),
        ({"user": "1", "item": 1}, "user: '1': the ids of this log are whole numbers, as 42"),
        ({"user": 1, "item": "x"}, "item: 'x': the ids of this log are whole numbers, as 42"),
        ({"user": 1, "item": 2**63}, "item: Input should be less than 9223372036854775808"),
        ({"user": 1, "item": 1, "kind": "view"}, "kind: is not a field of this request; /docs lists them"),
        (
            {"user": 1, "item": 1, "columns": {"device": [1]}},
            "columns.device: has to be text, a number, true or false, or null",
        ),
        ({"user": 1, "item": 1, "columns": [1]}, "columns: has to be an object"),
        ({"user": 1, "item": 1, "type": ""}, "type: String should have at least 1 character"),
        ({"user": 1, "item": 1, "id": "é" * 129}, "id: is longer than 256 bytes"),
    ],
)
def test_an_event_that_is_none_is_rejected_and_the_others_are_stored(
    event: dict[str, object], detail: str
) -> None:
    service = memory_service()
    answer = ask(service, "POST", "/v1/events", json={"events": [{"user": 1, "item": 2}, event]})
    assert answer.status_code == 200
    assert answer.json()["rejected"] == [{"index": 1, "detail": detail}]
    assert (answer.json()["accepted"], len(stored(service, 1))) == (1, 1)


def test_times_may_be_five_minutes_ahead_and_no_more() -> None:
    service, now = memory_service(), int(time.time())
    sent = [{"user": 1, "item": 2, "time": now + 299}, {"user": 1, "item": 3, "time": now + 400}]
    answer = ask(service, "POST", "/v1/events", json={"events": sent}).json()
    assert answer["accepted"] == 1
    [rejected] = answer["rejected"]
    assert rejected["index"] == 1
    assert rejected["detail"].endswith("s ahead of this machine's clock")


def test_text_ids_are_taken_by_a_log_that_has_them() -> None:
    service = memory_service(text_ids=True)
    sent = [{"user": "u9", "item": "i1"}, {"user": 9, "item": "i1"}]
    answer = ask(service, "POST", "/v1/events", json={"events": sent}).json()
    assert [each["index"] for each in answer["rejected"]] == [1]
    assert [event.item for event in stored(service, "u9")] == ["i1"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"events": [[1, 2]]}, "events[0]"),
        ({"events": [{"user": 1, "item": 1}] * 1001}, "events"),
        ({}, "events"),
        ({"events": [], "user": 1}, "user"),
    ],
)
def test_a_body_of_another_form_stores_nothing(body: object, field: str) -> None:
    service = memory_service()
    answer = ask(service, "POST", "/v1/events", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert service.events is not None
    assert service.events.last_seq() == 0


def test_a_full_disk_is_507_and_recommendations_go_on() -> None:
    service = memory_service()
    assert isinstance(service.events, MemoryEvents)
    service.events.full = True
    answer = ask(service, "POST", "/v1/events", json={"events": [{"user": 1, "item": 2}]})
    assert (answer.status_code, answer.json()["title"]) == (507, "Events cannot be stored now")
    assert ask(service, "DELETE", "/v1/users/1").status_code == 507
    assert ask(service, "POST", "/v1/recommend", json={"user": 1}).status_code == 200
    service.events.full = False
    answer = ask(service, "POST", "/v1/events", json={"events": [{"user": 1, "item": 2}]})
    assert answer.json()["accepted"] == 1


def test_a_service_without_a_store_says_so() -> None:
    service = memory_service()
    service.events = None
    answer = ask(service, "POST", "/v1/events", json={"events": []})
    assert (answer.status_code, answer.json()["detail"]) == (
        404,
        "this service keeps no events; serve with --events FILE",
    )
    assert ask(service, "GET", "/v1/users/1/history").json()["total"] == 2


def test_a_history_is_the_log_then_the_store_newest_first_by_pages() -> None:
    service = memory_service()
    assert service.events is not None
    service.events.append([Event(1, 9, 300, type="view"), Event(1, 99, 250)])
    first = ask(service, "GET", "/v1/users/1/history?limit=3").json()
    assert first == {
        "user": 1,
        "total": 4,
        "events": [
            {"item": 9, "title": "Title <9>", "time": 300, "type": "view", "seq": 1},
            {"item": 99, "title": None, "time": 250, "type": None, "seq": 2},
            {"item": 2, "title": "Title <2>", "time": 200, "type": None, "seq": None},
        ],
        "before": 1,
    }
    second = ask(service, "GET", "/v1/users/1/history?limit=3&before=1").json()
    assert [event["item"] for event in second["events"]] == [1]
    assert second["before"] is None
    assert ask(service, "GET", "/v1/users/777/history").status_code == 404
    assert ask(service, "GET", "/v1/users/x/history").status_code == 404


def test_an_erased_user_has_no_history_and_later_events_count() -> None:
    service = memory_service()
    assert service.events is not None
    service.events.append([Event(1, 9, 300), Event(2, 9, 300)])
    erased = ask(service, "DELETE", "/v1/users/1")
    assert (erased.status_code, erased.json()) == (200, {"user": 1, "deleted": 1, "erased": True})
    assert ask(service, "GET", "/v1/users/1/history").status_code == 404
    assert ask(service, "DELETE", "/v1/users/1").json()["deleted"] == 0
    assert ask(service, "DELETE", "/v1/users/777").status_code == 404
    assert ask(service, "GET", "/v1/users/2/history").json()["total"] == 2
    ask(service, "POST", "/v1/events", json={"events": [{"user": 1, "item": 2}]})
    again = ask(service, "GET", "/v1/users/1/history").json()
    assert [event["item"] for event in again["events"]] == [2]


@pytest.mark.parametrize(("method", "end"), [("GET", "/history"), ("DELETE", "")])
def test_an_id_with_a_slash_reaches_the_routes_of_users(method: str, end: str) -> None:
    problem = ask(memory_service(), method, f"/v1/users/a%2Fb{end}").json()
    assert problem["type"] == "urn:recsys:problem:unknown-id"
    assert "'a/b'" in problem["detail"]


@pytest.mark.parametrize("end", ["history", "clock", "recommendations"])
def test_an_id_may_end_like_a_path_of_users_if_it_is_quoted(end: str) -> None:
    # Nothing is got of a user without a word behind the id.
    assert ask(memory_service(), "GET", f"/v1/users/1%2F{end}").status_code == 405
    for path in (f"/v1/users/a%2F{end}/{end}", f"/v1/users/a/{end}/{end}"):
        assert f"'a/{end}'" in ask(memory_service(), "GET", path).json()["detail"]
    assert ask(memory_service(), "GET", f"/v1/users/1/{end}").status_code == 200
