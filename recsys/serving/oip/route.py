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

_WHY = {
    400: "The request is not one of the protocol.",
    401: "No key, or not one of this service.",
    403: "The key has not the scope of this route.",
    404: "No model of that name or version.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    414: "The path and query are too long.",
    415: "The body is compressed.",
    422: "Inputs that cannot be answered.",
    429: "The key asks too much.",
    431: "The headers are too long.",
    503: "Busy, loading or ending; ask again.",
    504: "Not answered in time.",
}
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}

FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"description": why, "content": {"application/json": {"schema": _ERROR}}}
    for status, why in _WHY.items()
}
"""What any route may answer instead, for the documentation."""


class ProtocolRoute(APIRoute):
    """A route whose errors are the protocol's; what is no `RecsysError` is answered as on all other paths."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, its errors caught."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except RecsysError as error:
                status, text = refusal(error)
                if status >= 500:
                    # Of the others the client knows the reason; their text may name a user.
                    facts_of(request).error = str(error)
                return respond({"status": status, "detail": text}, "/v2")

        return answer
