"""Who may ask: keys in headers or in the page's cookie, and scopes of routes.

`KeyCheck` refuses who has no key before a body is read; `requires` asks for the scope of a route. Without
keys everybody has every scope, and only the machine itself can reach the service.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.responses import RedirectResponse

from recsys.serving.http.facts import Facts, facts_in, facts_of
from recsys.serving.http.keys import COOKIE, SCOPES, Key, Keys
from recsys.serving.http.problems import problem, respond

LOGIN = "/ui/login"
"""Where a browser without a key is sent."""

OPEN = frozenset(
    (
        *("/livez", "/readyz", "/startupz", "/v2", "/v2/health/live", "/v2/health/ready"),
        *("/openapi.json", "/docs", LOGIN),
    )
)
"""Paths that need no key: they tell nothing of users or items."""
OPEN_FOLDERS = ("/docs/", "/ui/static/")

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


def requires(scope: str) -> Callable[[Request], Awaitable[None]]:
    """A FastAPI dependency: the key of the request has a scope.

    Args:
        scope: "read", "write" or "admin".
    """
    assert scope in SCOPES

    async def check(request: Request) -> None:
        if request.app.state.keys is None:
            return
        key = facts_of(request).key
        if key is None:
            raise HTTPException(401, "a key is needed", {"WWW-Authenticate": "Bearer"})
        if scope not in key.scopes:
            raise HTTPException(403, f"the key {key.name!r} has no scope {scope!r}")

    check.recsys_scope = scope  # type: ignore[attr-defined]
    return check


def scope_of(dependencies: Sequence[Any]) -> str:
    """The scope that a route's dependencies ask for.

    Args:
        dependencies: made by `fastapi.Depends`, `requires` among them.
    """
    (scope,) = (found for own in dependencies if (found := getattr(own.dependency, "recsys_scope", None)))
    return str(scope)


def key_of(facts: Facts, keys: Keys) -> Key | None:
    """The key of a request by its headers: Authorization, X-API-Key or the page's cookie."""
    secret = facts.header(b"x-api-key")
    if secret is None:
        how, _, rest = (facts.header(b"authorization") or "").partition(" ")
        secret = rest.strip() if how.lower() == "bearer" else None
    if secret is not None:
        return keys.of_secret(secret)
    try:
        cookie = SimpleCookie(facts.header(b"cookie")).get(COOKIE)
    except CookieError:
        return None
    return None if cookie is None else keys.of_session(cookie.value)


class _Use:
    """What a key does in this worker: requests at a time, and a bucket of one second's requests."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._tokens: float | None = None
        self._since = 0.0

    def enter(self, key: Key, now: float) -> str | None:
        """Count a request in, or say why not."""
        if key.in_flight is not None and self.in_flight >= key.in_flight:
            return f"the key {key.name!r} has {key.in_flight} requests in flight, which is all it may"
        if key.rate is not None:
            most = max(1.0, key.rate)
            tokens = most if self._tokens is None else self._tokens + (now - self._since) * key.rate
            self._tokens, self._since = min(most, tokens), now
            if self._tokens < 1:
                return f"the key {key.name!r} asks more than {key.rate:g} requests a second"
            self._tokens -= 1
        self.in_flight += 1
        return None


class KeyCheck:
    """ASGI middleware: no key, no way in, and not more than a key may; no other site's forms."""

    def __init__(
        self, app: Any, keys: Keys | None, origins: tuple[str, ...] = (), *, loopback_only: bool
    ) -> None:
        """Check requests for an app.

        Args:
            app: what is asked if all is well.
            keys: of the service, None for one without.
            origins: other sites whose scripts may ask.
            loopback_only: refuse requests that call this machine by another name than "localhost": pages of
                other sites could ask through one (DNS rebinding), where no key keeps them out.
        """
        self.app, self.keys, self.origins, self.loopback_only = app, keys, origins, loopback_only
        self._uses: dict[str, _Use] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 401, 403 or 421, or let the app answer."""
        if scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            key = facts_in(scope).key
            if key is not None and (key.rate is not None or key.in_flight is not None):
                await self._limited(key, scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _limited(self, key: Key, scope: Any, receive: Any, send: Any) -> None:
        use = self._uses.setdefault(key.name, _Use())
        why = use.enter(key, time.monotonic())
        if why is not None:
            facts = facts_in(scope)
            facts.refused = "rate"
            await respond(problem(429, why, request_id=facts.request_id), scope["path"])(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            use.in_flight -= 1

    def _refusal(self, scope: Mapping[str, Any]) -> Any:
        path, facts = str(scope["path"]), facts_in(scope)

        def refuse(status: int, detail: str, more: dict[str, str] | None = None) -> Any:
            return respond(problem(status, detail, request_id=facts.request_id), path, more)

        host = facts.header(b"host") or ""
        if self.loopback_only and host and _name(f"//{host}") not in _LOOPBACK:
            return refuse(421, "this service answers to localhost alone; serve with keys to use other names")
        origin = facts.header(b"origin")
        if scope["method"] not in _SAFE and not self._same_site(origin, host):
            return refuse(403, "another site's page may not change anything here: its origin is not allowed")
        if self.keys is None:
            return None
        facts.key = key_of(facts, self.keys)
        if facts.key is not None or path in OPEN or path.startswith(OPEN_FOLDERS):
            return None
        if path == "/" or path.startswith("/ui"):
            return RedirectResponse(LOGIN, 303)
        facts.refused = "key"
        return refuse(
            401, "send a key as `Authorization: Bearer …` or `X-API-Key`", {"WWW-Authenticate": "Bearer"}
        )

    def _same_site(self, origin: str | None, host: str) -> bool:
        if origin is None or origin in self.origins:
            return True
        return origin.partition("://")[2].lower() == host.lower()


@lru_cache(64)
def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
