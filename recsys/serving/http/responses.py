"""Answers as JSON, and how the documentation names what may come instead."""

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from recsys.serving.http.problems import MEDIA_TYPE
from recsys.serving.http.schemas import Problem

_WHY = {
    400: "The body is not JSON.",
    401: "No key, or not one of this service.",
    403: "The key has not the scope of this route.",
    404: "Nothing of that name.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    414: "The path and query are too long.",
    415: "The body is not sent as plain JSON.",
    422: "A field is not accepted.",
    429: "The key asks too much.",
    431: "The headers are too long.",
    503: "Busy, loading or ending; ask again after Retry-After.",
    504: "Not answered in time.",
    507: "Events or items cannot be stored now.",
}


_ANY = frozenset((401, 403, 414, 429, 431, 503))
"""What any route may answer."""


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON; what is not finite, which JSON cannot hold, is null."""
    return Response(to_json(value, inf_nan_mode="null"), status, headers, "application/json")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems that a route may answer, for its documentation; those of any route are added."""
    return {
        status: {
            "description": _WHY[status],
            "model": Problem,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*_ANY, *((408,) if 413 in statuses else ()), *statuses})
    }
