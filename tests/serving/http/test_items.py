"""Items over HTTP: what is shown, put and removed, and which field is refused."""

import asyncio
from typing import Any

import httpx
import pytest

from recsys.serving.engine.asking import CatalogError, NewItem
from recsys.serving.http.service import Service
from tests.serving.doubles import MemoryEngine, asking, memory_service


def _send(service: Service, method: str, path: str, body: Any = None) -> httpx.Response:
    async def send() -> httpx.Response:
        async with asking(service) as client:
            return await client.request(method, path, json=body)

    return asyncio.run(send())


def test_an_item_is_shown_with_its_categories_and_events() -> None:
    found = _send(memory_service(), "GET", "/v1/items/7")
    assert found.json() == {
        "item": 7,
        "title": "Title <7>",
        "category": ["odd"],
        "events": 93,
        "model": "default",
    }


@pytest.mark.parametrize(
    ("body", "new"),
    [
        ({"like": [1, 2]}, NewItem(like=[1, 2])),
        ({"vector": [1, 0.5]}, NewItem(vector=[1.0, 0.5])),
        ({"category": "odd"}, NewItem(category="odd")),
        ({"like": [3], "title": "New"}, NewItem(like=[3], title="New")),
        ({"like": [3], "category": "even"}, NewItem(like=[3], category="even")),
        (
            {"features": {"kind": ["a", "b"], "title": "New", "vector": [1, 0.5], "maker": "m|n"}},
            NewItem(features={"kind": ["a", "b"], "title": "New", "vector": [1.0, 0.5], "maker": "m|n"}),
        ),
    ],
)
def test_an_item_is_put_as_the_body_says(body: Any, new: NewItem) -> None:
    service = memory_service()
    found = _send(service, "PUT", "/v1/items/5000", body)
    assert found.status_code == 200
    assert found.json() == {"item": 5000, "model": "default", "version": "v2", "items": 21}
    assert isinstance(service.engine, MemoryEngine)
    assert service.engine.put == [(5000, new)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "like"),
        ({"like": []}, "like"),
        ({"like": ["i1"]}, "like"),
        ({"like": [True]}, "like[0]"),
        ({"like": [1], "vector": [1.0]}, "vector"),
        ({"like": [1], "features": {"kind": "a"}}, "features"),
        ({"features": {}}, "features"),
        ({"features": {"kind": None}}, "features.kind"),
        ({"features": {"kind": [[1]]}}, "features.kind"),
        ({"vector": []}, "vector"),
        ({"vector": ["x"]}, "vector[0]"),
        ({"vector": [1e39]}, "vector[0]"),
        ({"category": "none"}, "category"),
        ({"category": 5}, "category"),
        ({"like": [1], "title": ""}, "title"),
        ({"title": "Only a title"}, "like"),
        ({"like": [1], "more": 1}, "more"),
    ],
)
def test_a_body_that_does_not_fit_names_the_field(body: Any, field: str) -> None:
    service = memory_service()
    found = _send(service, "PUT", "/v1/items/5000", body)
    assert (found.status_code, found.json()["field"]) == (422, field)
    assert isinstance(service.engine, MemoryEngine)
    assert service.engine.put == []


@pytest.mark.parametrize(
    ("text_ids", "item", "status"),
    [
        (False, "abc", 404),
        (False, "9999999999999999999", 422),
        (True, "a" * 257, 422),
        (True, "%00", 422),
        (True, "new%20one", 200),
    ],
)
def test_an_id_that_no_event_could_name_is_not_put(text_ids: bool, item: str, status: int) -> None:
    body = {"category": "odd"}
    found = _send(memory_service(text_ids=text_ids), "PUT", f"/v1/items/{item}", body)
    assert found.status_code == status


def test_an_item_is_removed_and_an_unknown_one_is_not_found() -> None:
    service = memory_service()
    found = _send(service, "DELETE", "/v1/items/7")
    gone = _send(service, "GET", "/v1/items/7")
    assert (gone.status_code, gone.json()["detail"]) == (404, "item '7' was removed: it is not answered")
    assert (found.status_code, found.json()["items"]) == (200, 19)
    assert _send(memory_service(), "DELETE", "/v1/items/500").status_code == 404
    assert _send(memory_service(), "DELETE", "/v1/items/7?model=x").status_code == 404


def test_an_id_may_hold_a_slash_as_it_is_or_quoted() -> None:
    """In a body an id is any text: a path names the same items."""
    service = memory_service(text_ids=True)
    engine = service.engine
    assert isinstance(engine, MemoryEngine)
    engine.names[7] = "shop/7"
    for path in ("/v1/items/shop/7", "/v1/items/shop%2F7"):
        assert _send(service, "GET", path).json()["item"] == "shop/7"
        found = _send(service, "GET", f"{path}/similar?k=2").json()
        assert (found["item"], [near["id"] for near in found["items"]]) == ("shop/7", ["i6", "i8"])
    assert _send(service, "PUT", "/v1/items/new/one", {"like": ["shop/7"]}).json()["item"] == "new/one"
    assert _send(service, "DELETE", "/v1/items/shop/7").json()["item"] == "shop/7"
    assert _send(service, "GET", "/v1/items/shop/7").status_code == 404
    assert _send(service, "GET", "/v1/items/shop/8").status_code == 404


def test_an_id_may_end_like_a_path_if_it_is_quoted() -> None:
    service = memory_service(text_ids=True)
    engine = service.engine
    assert isinstance(engine, MemoryEngine)
    engine.names[7], engine.names[8] = "shop", "shop/similar"
    found = _send(service, "GET", "/v1/items/shop/similar?k=1").json()
    assert (found["item"], [near["id"] for near in found["items"]]) == ("shop", ["i6"])
    assert _send(service, "GET", "/v1/items/shop%2Fsimilar").json()["item"] == "shop/similar"
    for path in ("/v1/items/shop/similar/similar", "/v1/items/shop%2Fsimilar/similar?k=1"):
        found = _send(service, "GET", path).json()
        assert (found["item"], found["items"][0]["id"]) == ("shop/similar", "shop")
    assert _send(service, "DELETE", "/v1/items/shop%2Fsimilar").json()["item"] == "shop/similar"


def test_a_folder_that_cannot_be_written_is_said_in_words() -> None:
    service = memory_service()
    assert isinstance(service.engine, MemoryEngine)
    service.engine.fails = CatalogError("the catalog cannot be saved: /runs/a: read-only")
    found = _send(service, "PUT", "/v1/items/5000", {"category": "odd"})
    assert (found.status_code, found.json()["detail"]) == (507, str(service.engine.fails))
    assert service.events_writable
