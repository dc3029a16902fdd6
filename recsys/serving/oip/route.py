"""The kind of route that the protocol's paths have: errors have its statuses, and are `{"error": text}`."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from recsys.errors import RecsysError
from recsys.serving.http.facts import facts_of
from recsys.serving.http.problems import respond
from recsys.serving.oip.errors import refusal


class ProtocolRoute(APIRoute):
    """A route whose errors are the protocol's; what is no `RecsysError` is answered as on all other paths."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, its errors caught."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except RecsysError as error:
                facts_of(request).error = str(error)
                status, text = refusal(error)
                return respond({"status": status, "detail": text}, "/v2")

        return answer
