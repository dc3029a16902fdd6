"""Who may ask what: every route against every key, from the API's own description."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from recsys.errors import ConfigError
from recsys.serving.http.app import create_app
from recsys.serving.http.auth import OPEN, OPEN_FOLDERS
from recsys.serving.http.keys import COOKIE, SESSION_SECONDS, Keys, new_key
from recsys.serving.http.service import Service
from tests.serving.doubles import asking, memory_service

WRITES = {
    ("POST", "/v1/events"),
    ("DELETE", "/v1/users/{user}"),
    ("PUT", "/v1/items/{item}"),
    ("DELETE", "/v1/items/{item}"),
}
ADMIN = re.compile(r"/v1/models($|/)|/v2/repository/models/")
"""Paths for the scope admin; of the others `WRITES` ask for write, and the rest for read."""


def routes() -> list[tuple[str, str]]:
    """(method, path) of every route that the description has."""
    described = create_app(memory_service()).openapi()
    return [(method.upper(), path) for path, each in described["paths"].items() for method in each]


def needed(method: str, path: str) -> str | None:
    if path in OPEN:
        return None
    if ADMIN.match(path):
        return "admin"
    return "write" if (method, path) in WRITES else "read"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file of keys with one scope each, and their secrets."""
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    return file, {scope: new_key(file, scope, (scope,)) for scope in ("read", "write", "admin")}


def ask(service: Service, method: str, path: str, **given: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with asking(service) as client:
            return await client.request(method, path, **given)

    return asyncio.run(run())


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_asks_for_its_scope(keyed: tuple[Path, dict[str, str]], method: str, path: str) -> None:
    file, secrets = keyed
    scope, address = needed(method, path), re.sub(r"\{[^}]+\}", "1", path)

    async def run() -> None:
        async with asking(memory_service(keys=str(file))) as client:

            async def status(**headers: str) -> int:
                body: dict[str, Any] = {"json": {}} if method in ("POST", "PUT") else {}
                return (await client.request(method, address, headers=headers, **body)).status_code

            if scope is None:
                assert await status() not in (401, 403)
                return
            assert await status() == 401
            for wrong in (
                "",
                "x",
                secrets["read"][:-1],
                secrets["read"] + "x",
                secrets["read"].swapcase(),
            ):
                assert await status(authorization=f"Bearer {wrong}") == 401
                assert await status(**{"x-api-key": wrong}) == 401
            assert await status(authorization=f"Basic {secrets[scope]}") == 401
            assert await status(cookie=f"{COOKIE}={secrets[scope]}") == 401
            for name, secret in secrets.items():
                found = await status(authorization=f"Bearer {secret}")
                # What lacks a good body may be refused for it before the scope is looked at.
                assert found != 401
                assert (found in (403, 422, 400)) if name != scope else found not in (401, 403)
                if name != scope and not body_needed(method, path):
                    assert found == 403

    asyncio.run(run())


def body_needed(method: str, path: str) -> bool:
    return "requestBody" in create_app(memory_service()).openapi()["paths"][path][method.lower()]


def test_routes_that_need_no_key_are_few_and_known() -> None:
    """A route without a scope is one of those that are open, whether it is described or not."""
    without = set()
    for route in every_route(create_app(memory_service())):
        scopes = [getattr(d.call, "recsys_scope", None) for d in route.dependant.dependencies]
        if not any(scopes):
            without.add(route.path)
    described = {path for path in without if path not in OPEN and not path.startswith((*OPEN_FOLDERS, "/ui"))}
    assert described == set()


def every_route(app: Any) -> list[APIRoute]:
    found: list[APIRoute] = []
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        if isinstance(route, APIRoute):
            found.append(route)
        inner = getattr(route, "original_router", None)
        waiting += list(getattr(inner, "routes", ()))
    assert len(found) >= len(routes()) - 1
    return found


def test_without_keys_this_machine_alone_may_ask() -> None:
    body = {"json": {"user": 1}}
    assert ask(memory_service(), "POST", "/v1/recommend", **body).status_code == 200
    for host in ("127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
        assert (
            ask(memory_service(), "POST", "/v1/recommend", headers={"host": host}, **body).status_code == 200
        )
    for host in ("shop.example", "127.0.0.1.shop.example", "[::1", "localhost.shop.example:80"):
        found = ask(memory_service(), "POST", "/v1/recommend", headers={"host": host}, **body)
        assert found.status_code == 421, host
    trusting = memory_service(insecure=True)
    found = ask(trusting, "POST", "/v1/recommend", headers={"host": "shop.example"}, **body)
    assert found.status_code == 200


def test_pages_of_other_sites_change_nothing_and_read_nothing() -> None:
    body = {"json": {"user": 1}}
    service = memory_service(cors=("https://shop.example",))
    for origin, status in (
        ("https://shop.example", 200),
        ("http://localhost", 200),
        ("https://shop.example.evil.example", 403),
        ("null", 403),
        ("http://shop.example", 403),
    ):
        found = ask(service, "POST", "/v1/recommend", headers={"origin": origin}, **body)
        assert found.status_code == status, origin
        allowed = found.headers.get("access-control-allow-origin")
        assert allowed == (origin if origin == "https://shop.example" else None)
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    assert ask(service, "OPTIONS", "/v1/recommend", headers=asked).status_code == 200
    asked["origin"] = "https://evil.example"
    found = ask(service, "OPTIONS", "/v1/recommend", headers=asked)
    assert "access-control-allow-origin" not in found.headers
    found = ask(memory_service(), "GET", "/readyz", headers={"origin": "https://shop.example"})
    assert "access-control-allow-origin" not in found.headers


def test_a_session_stands_for_its_key_until_it_expires_or_the_key_goes(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    secret = new_key(file, "shop", ("read",))
    keys = Keys.read(file)
    key = keys.of_secret(secret)
    assert key is not None
    value = keys.session(key, now=1000.0)
    assert keys.of_session(value, now=1000.0) == key
    assert keys.of_session(value, now=1001.0 + SESSION_SECONDS) is None
    assert secret not in value
    assert key.sha256 not in value
    name, expires, signature = value.split("|")
    for forged in (
        f"{name}|{int(expires) + 1}|{signature}",
        f"other|{expires}|{signature}",
        f"{name}|{expires}|{'0' * 64}",
        f"{name}|{expires}|",
        f"{name}|-1|{signature}",
        f"{name}|٣|{signature}",
        "",
        "||",
    ):
        assert keys.of_session(forged, now=1000.0) is None
    value = keys.session(key)
    service = memory_service(keys=str(file))
    headers = {"cookie": f'{COOKIE}="{value}"'}
    assert ask(service, "GET", "/v1/users/1/recommendations", headers=headers).status_code == 200
    file.unlink()
    new_key(file, "shop", ("read",))
    keys.reread()
    assert keys.of_session(value) is None


def test_a_key_has_a_rate_and_a_most_in_flight(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    secret = new_key(file, "slow", ("read",))
    file.write_text(file.read_text() + "rate = 0.001\n")
    service = memory_service(keys=str(file))

    async def run() -> list[httpx.Response]:
        async with asking(service, authorization=f"Bearer {secret}") as client:
            return [await client.get("/v1/users/1/recommendations") for _ in range(3)]

    found = asyncio.run(run())
    assert [each.status_code for each in found] == [200, 429, 429]
    assert "retry-after" in found[1].headers
    assert service.metrics.registry.get_sample_value("recsys_rejected_total", {"reason": "rate"}) == 2

    file.write_text(file.read_text().replace("rate = 0.001", "in_flight = 1"))
    held = asyncio.Event()

    async def together() -> list[int]:
        service = memory_service(keys=str(file))
        answer = service.engine.recommend

        async def slow(ask: Any) -> Any:
            await held.wait()
            return await answer(ask)

        service.engine.recommend = slow  # type: ignore[method-assign]
        async with asking(service, authorization=f"Bearer {secret}") as client:
            first = asyncio.create_task(client.get("/v1/users/1/recommendations"))
            await asyncio.sleep(0.05)
            second = await client.get("/v1/users/1/recommendations")
            held.set()
            third = await first
            fourth = await client.get("/v1/users/1/recommendations")
        return [second.status_code, third.status_code, fourth.status_code]

    assert asyncio.run(together()) == [429, 200, 200]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no"),
        ("keys = 3", "holds no"),
        ("[[keys]]\nname = 'a'", "sha256"),
        ("[[keys]]\nname = 'a b'\nsha256 = ''\nscopes = []", "name"),
        ("[[keys]]\nname = 'a'\nsha256 = 'DIGEST'\nscopes = ['root']", "scopes"),
        ("[[keys]]\nname = 'a'\nsha256 = 'DIGEST'\nscopes = ['read']\nrate = 0", "rate"),
        ("[[keys]]\nname = 'a'\nsha256 = 'DIGEST'\nscopes = ['read']\nin_flight = true", "in_flight"),
        ("[[keys]]\nname = 'a'\nsha256 = 'DIGEST'\nscopes = ['read']\nsecret = 'x'", "secret"),
        ("[[keys]]\nname = 'a'\nsha256 = 'DIGEST'\nscopes = ['read']\n" * 2, "two keys"),
        ("[[keys", "TOML"),
        ("\x00", "TOML"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text.replace("DIGEST", "ab" * 32))
    with pytest.raises(ConfigError) as caught:
        Keys.read(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "ab" * 32 not in str(caught.value)


def test_keys_stay_as_they_were_where_the_file_is_none_any_more(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    secret = new_key(file, "a", ("read",))
    keys = Keys.read(file)
    file.write_text("nonsense")
    with pytest.raises(ConfigError):
        keys.reread()
    assert keys.of_secret(secret) is not None
    with pytest.raises(ConfigError, match="TOML"):
        new_key(file, "b", ("read",))
    assert file.read_text() == "nonsense"
