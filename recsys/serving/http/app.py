"""The application of a worker: routes, and what stands around them."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from recsys import __version__
from recsys.serving.http.auth import KeyCheck
from recsys.serving.http.busy import BusyCheck
from recsys.serving.http.direct import DirectRoutes
from recsys.serving.http.envelope import Envelope
from recsys.serving.http.keys import Keys
from recsys.serving.http.limits import BodyLimits
from recsys.serving.http.log_lines import RequestLines
from recsys.serving.http.problems import add_handlers
from recsys.serving.http.service import Service

ROUTES = (
    "recsys.serving.http.routes.health",
    "recsys.serving.http.routes.recommend",
    "recsys.serving.http.routes.events",
    "recsys.serving.http.routes.users",
    "recsys.serving.http.routes.clock",
    "recsys.serving.http.routes.items",
    "recsys.serving.http.routes.docs",
    "recsys.serving.http.routes.models",
    "recsys.serving.oip.routes",
)
PAGE = "recsys.serving.page.routes"
"""Modules whose `router` makes the application; the page's is there unless it is not wanted."""
DIRECT = ("/v1/recommend", "/v1/events")
"""Paths of the routes that `DirectRoutes` answers."""


class _Application(FastAPI):
    """FastAPI's own, with our middlewares before all of its.

    What FastAPI puts around every request is of no use to one that is refused, or answered directly.
    """

    def put_around(self, middleware: Sequence[Middleware]) -> None:
        """Let middlewares answer, the first one outermost, before what FastAPI does."""
        found: Any = super().__call__
        for own in reversed(middleware):
            found = own.cls(found, *own.args, **own.kwargs)
        self._outermost = found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as ASGI has it."""
        scope["app"] = self
        await self._outermost(scope, receive, send)


def create_app(
    service: Service, *, salt: str | None = None, lifespan: Callable[[FastAPI], Any] | None = None
) -> FastAPI:
    """Make the application that answers for a service.

    Args:
        service: engine, store and settings.
        salt: what hashes of users in the log are keyed with; None draws one.
        lifespan: entered before the first request and left after the last one.

    Raises:
        ConfigError: the file of keys is not one.
    """
    settings = service.settings
    keys = None if settings.keys is None else Keys.read(settings.keys)
    lines = RequestLines(salt or secrets.token_hex(16), log_users=settings.log_users)
    middleware = [
        Middleware(Envelope, metrics=service.metrics, lines=lines, traffic=service.traffic),
        Middleware(
            KeyCheck,
            keys=keys,
            origins=settings.cors,
            loopback_only=keys is None and not settings.insecure,
        ),
        Middleware(BusyCheck, service=service),
        Middleware(BodyLimits),
        Middleware(DirectRoutes, routes=_direct(), service=service, keys=keys),
    ]
    if settings.cors:
        # Inside the envelope, outside of the keys: a browser asks beforehand without one.
        middleware.insert(1, _cors(settings.cors))
    app = _Application(
        title="recsys",
        version=__version__,
        summary="Sequential recommendations: what comes next, for a user or a history",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan or _nothing,
    )
    app.put_around(middleware)
    app.state.service, app.state.keys = service, keys
    add_handlers(app)
    for name in ROUTES if not settings.page else (*ROUTES, PAGE):
        app.include_router(import_module(name).router)
    return app


def _direct() -> list[APIRoute]:
    """The routes that most requests are for."""
    routers = [import_module(name).router for name in ROUTES]
    found = [route for router in routers for route in router.routes if route.path in DIRECT]
    assert len(found) == len(DIRECT)
    return found


def _cors(origins: tuple[str, ...]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-Id", "traceparent"],
        expose_headers=["X-Request-Id", "Retry-After"],
    )


@asynccontextmanager
async def _nothing(_: FastAPI) -> AsyncIterator[None]:
    yield
