"""Routes that are asked all the time, answered without what FastAPI does for each request.

Finding the route, solving its dependencies, and reading and checking the body as any other would take longer
than most answers. A good request goes straight to the route's own function; whatever else comes goes on to
FastAPI, which says what is wrong with it.
"""

from collections.abc import Iterable
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from recsys.errors import RecsysError
from recsys.serving.http.auth import scope_of
from recsys.serving.http.facts import facts_in
from recsys.serving.http.keys import Keys
from recsys.serving.http.limits import JSON
from recsys.serving.http.problems import answer_error
from recsys.serving.http.service import Service


class _Direct:
    """A route of POST whose function takes `body`, `request` and `service`."""

    def __init__(self, route: APIRoute) -> None:
        assert route.body_field is not None
        model = route.body_field.field_info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        self.route, self.scope = route, scope_of(route.dependencies)
        self.call, self.validate = route.endpoint, model.__pydantic_validator__.validate_python


class DirectRoutes:
    """ASGI middleware, the innermost: answers good requests of some routes, and hands on all others.

    Args:
        app: FastAPI's own.
        routes: of POST, each with a JSON body, the request and the service as its arguments.
        service: that is asked.
        keys: of the service, None for one without.
    """

    def __init__(self, app: Any, routes: Iterable[APIRoute], service: Service, keys: Keys | None) -> None:
        self.app, self._service, self._keys = app, service, keys
        self._routes = {route.path: _Direct(route) for route in routes}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or let FastAPI do it."""
        direct = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if direct is None or scope["method"] != "POST" or JSON not in scope or not self._may(direct, scope):
            await self.app(scope, receive, send)
            return
        try:
            body = direct.validate(scope[JSON])
        except ValidationError:
            await self.app(scope, receive, send)
            return
        scope["route"] = direct.route
        request = Request(scope, receive)
        try:
            response = await direct.call(body=body, request=request, service=self._service)
        except (RecsysError, HTTPException) as error:
            response = await answer_error(request, error)
        await response(scope, receive, send)

    def _may(self, direct: _Direct, scope: Any) -> bool:
        if self._keys is None:
            return True
        key = facts_in(scope).key
        return key is not None and direct.scope in key.scopes
