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
    413: "The body is too large.",
    415: "The body is not sent as plain JSON.",
    422: "A field is not accepted.",
    429: "The key asks too much.",
    503: "Busy, loading or ending; ask again after Retry-After.",
    504: "Not answered in time.",
    507: "Events or items cannot be stored now.",
}


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
        for status in sorted({401, 403, 429, 503, *statuses})
    }
