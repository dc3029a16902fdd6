"""The pages by their text: what they show, what is refused, and that nothing hostile comes alive."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys.events.store import Event
from recsys.serving.engine.asking import BusyError
from recsys.serving.http.keys import new_key
from recsys.serving.http.service import Service
from recsys.serving.page.ids import path_of
from recsys.serving.page.rendering import STATIC_TYPES, static_file
from tests.serving.doubles import asking, memory_service

PART = {"HX-Request": "true", "HX-Request-Type": "partial"}


def got(service: Service, path: str, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with asking(service, **headers) as client:
            return await client.get(path)

    return asyncio.run(ask())


def with_client(service: Service, use: Callable[[httpx.AsyncClient], Any]) -> Any:
    async def run() -> Any:
        async with asking(service) as client:
            return await use(client)

    return asyncio.run(run())


def ranked(text: str) -> list[list[str]]:
    """Cells of the table of answers, tags left out."""
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    rows = [re.findall(r"<td.*?>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)]
    return [[" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in row] for row in rows]


def test_a_user_is_history_beside_answers() -> None:
    service = memory_service()
    assert service.events is not None
    service.events.append([Event(1, 7, 86_400, type="view")])
    text = got(service, "/ui/users/1?k=5").text
    assert text.index("1970-01-02 00:00") < text.index("1970-01-01 00:03") < text.index("1970-01-01 00:01")
    assert [row[0:2] for row in ranked(text)] == [
        [str(rank), f"Title &lt;{item}&gt; {item}"] for rank, item in enumerate((3, 4, 5, 6, 8), 1)
    ]
    # Item 3 is one away from item 2 of the log, item 8 one away from item 7, which has just come in.
    assert ranked(text)[0][3] == "0.50 Title &lt;2&gt;"
    assert ranked(text)[4][3] == "0.50 Title &lt;7&gt;"


def test_what_if_shows_ranks_before_and_stores_nothing() -> None:
    service = memory_service()
    assert service.events is not None
    text = got(service, "/ui/users/1?k=3&item=3").text
    # The log holds 1 and 2; with 3 appended, 4 is first and was second.
    assert [row[:3] for row in ranked(text)] == [
        ["1", "2 ▲ (rises)", "Title &lt;4&gt; 4"],
        ["2", "3 ▲ (rises)", "Title &lt;5&gt; 5"],
        ["3", "4 ▲ (rises)", "Title &lt;6&gt; 6"],
    ]
    assert service.events.last_seq() == 0


def test_category_and_seen_items_are_chosen() -> None:
    rows = ranked(got(memory_service(), "/ui/users/1?k=5&category=odd&seen=1").text)
    assert [row[1] for row in rows] == [f"Title &lt;{item}&gt; {item}" for item in (1, 3, 5, 7, 9)]


def test_htmx_gets_the_part_and_everybody_else_the_page() -> None:
    service = memory_service()
    part, page = got(service, "/ui/users/1", **PART), got(service, "/ui/users/1")
    assert part.text.lstrip().startswith(("<p", "<div"))
    assert "<html" not in part.text
    assert "<html" in page.text
    assert page.headers["Vary"] == "HX-Request"


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/ui/users/5", 404, "neither the log nor the events know one"),
        ("/ui/users/abc", 404, "whole numbers"),
        ("/ui/items/77", 404, "not in the catalog"),
        ("/ui/nothing/here", 404, "no such page"),
        ("/ui/users/1?zone=Mars", 422, "no time zone"),
        ("/ui/users/1?item=nothing", 422, "no item has this id or title"),
        ("/ui/users/1?k=0", 422, "greater than or equal to 1"),
        ("/ui/users/1?model=other", 404, "not in service"),
    ],
)
def test_what_cannot_be_shown_is_a_page_that_says_why(path: str, status: int, said: str) -> None:
    found = got(memory_service(), path)
    assert (found.status_code, found.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert said in found.text
    assert "<h1>" in found.text


def test_a_page_that_is_busy_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    service = memory_service()

    async def busy(*_: Any, **__: Any) -> Any:
        raise BusyError("too many wait: ask again in a second")

    monkeypatch.setattr(service.engine, "recommend", busy)
    found = got(service, "/ui/users/1")
    assert found.status_code == 503
    assert (found.headers["Retry-After"], found.headers["Vary"]) == ("1", "HX-Request")
    assert "ask again in a second" in found.text
    assert "Retry-After" not in got(service, "/ui/items/77").headers


def test_the_log_does_not_name_whom_a_page_was_not_found_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "recsys.serving"):
        assert got(memory_service(), "/ui/users/987654").status_code == 404
    (line,) = caplog.records
    assert "987654" not in str(vars(line))


def test_an_erased_user_is_gone() -> None:
    service = memory_service()
    assert service.events is not None
    service.events.erase(1)
    found = got(service, "/ui/users/1")
    assert found.status_code == 404
    assert "was erased" in found.text


@pytest.mark.parametrize(
    "raw", ["a/b c", "ü€", "<script>alert(1)</script>", "..", ".", "x\ny", "?#%", "/", "a//b"]
)
def test_ids_of_any_text_have_an_address_and_are_inert(raw: str) -> None:
    service = memory_service(text_ids=True)
    assert service.events is not None
    service.events.append([Event(raw, raw, 8)])
    events = got(service, "/ui/events")
    assert events.status_code == 200
    assert "<script>alert" not in events.text
    page = got(service, path_of("items", raw))
    assert page.status_code == 404
    assert "<script>alert" not in page.text
    assert "item" in page.text


def test_titles_are_text() -> None:
    text = got(memory_service(), "/ui?q=title").text
    assert "Title &lt;3&gt;" in text
    assert "Title <3>" not in text


def test_events_are_paged_newest_first() -> None:
    service = memory_service()
    assert service.events is not None
    service.events.append([Event(1, 1 + n % 20, 100 + n) for n in range(130)])
    first = got(service, "/ui/events").text
    assert [row[0] for row in ranked_rows(first)] == [str(seq) for seq in range(130, 30, -1)]
    assert "/ui/events?before=31" in first
    second = got(service, "/ui/events?before=31").text
    assert [row[0] for row in ranked_rows(second)] == [str(seq) for seq in range(30, 0, -1)]


def ranked_rows(text: str) -> list[list[str]]:
    """As `ranked`, of a table whose body has an id."""
    return ranked(re.sub(r"<tbody[^>]*>", "<tbody>", text))


def test_keys_log_in_and_out(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    secret = new_key(path, "reader", ("read",))
    service = memory_service(keys=str(path))

    async def use(client: httpx.AsyncClient) -> None:
        sent = await client.get("/ui/users/1")
        assert (sent.status_code, sent.headers["location"]) == (303, "/ui/login")
        assert (await client.get("/ui/static/page.css")).status_code == 200
        wrong = await client.post("/ui/login", data={"key": "wrong"})
        assert wrong.status_code == 401
        assert "no key of this service" in wrong.text
        right = await client.post("/ui/login", data={"key": secret})
        assert right.status_code == 303
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert secret not in cookie
        inside = await client.get("/ui/users/1")
        assert inside.status_code == 200
        assert "Log out" in inside.text
        assert (await client.post("/ui/logout")).status_code == 303
        assert (await client.get("/ui/users/1")).status_code == 303
        part = await client.get("/ui/login", headers=PART)
        assert (part.status_code, part.headers["HX-Redirect"]) == (204, "/ui/login")

    with_client(service, use)


def test_every_page_needs_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    new_key(path, "reader", ("read",))
    service = memory_service(keys=str(path))
    for page in ("/", "/ui", "/ui/traffic", "/ui/suggest", "/ui/users/1", "/ui/users?id=1", "/ui/items/1",
                 "/ui/items?id=1", "/ui/events", "/ui/nothing"):  # fmt: skip
        assert got(service, page).headers.get("location") == "/ui/login", page


def test_a_key_that_may_not_read_sees_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    secret = new_key(path, "writer", ("write",))
    found = got(memory_service(keys=str(path)), "/ui/users/1", **{"X-API-Key": secret})
    assert found.status_code == 403
    assert "has no scope" in found.text


def test_without_the_page_there_is_none() -> None:
    assert got(memory_service(page=False), "/ui").status_code == 404


def test_pages_hold_no_script_or_style_of_their_own() -> None:
    for path in ("/ui?q=1", "/ui/users/1?item=3", "/ui/items/1", "/ui/events"):
        found = got(memory_service(), path)
        assert found.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert re.findall(r"<script(?! src=)|<style| style=| on\w+=", found.text) == []


def test_vendored_files_are_those_that_are_noted() -> None:
    from recsys.serving.page import rendering

    noted = (Path(rendering.__file__).parent / "static" / "VENDORED.txt").read_text()
    assert hashlib.sha256(static_file("htmx.min.js")).hexdigest() in noted
    for name, kind in STATIC_TYPES.items():
        found = got(memory_service(), f"/ui/static/{name}")
        assert (found.content, found.headers["content-type"]) == (static_file(name), kind)
        assert "immutable" in found.headers["cache-control"]
    assert got(memory_service(), "/ui/static/..%2Froutes.py").status_code == 404


def test_curves_count_what_programs_ask() -> None:
    service = memory_service()

    async def use(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await client.post("/v1/recommend", json={"user": 1})
        await client.get("/ui")

    with_client(service, use)
    assert sum(second.requests for second in service.traffic._seconds) == 3
