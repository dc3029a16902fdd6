"""Errors as answers: RFC 9457 `application/problem+json`, and `{"error": …}` under /v2.

Never a traceback, nor what was sent: a problem names the field and the remedy.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from recsys.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    IndexServerError,
    RecsysError,
    RetrievalError,
    UnknownIdError,
)
from recsys.events.store import EventStoreError, StoreFullError
from recsys.serving.engine.asking import BusyError, CatalogError, DeadlineError
from recsys.serving.http.facts import facts_of

MEDIA_TYPE = "application/problem+json"

_KINDS: tuple[tuple[type[RecsysError], int, str, str], ...] = (
    (BusyError, 503, "busy", "Busy: ask again later"),
    (DeadlineError, 504, "deadline", "Not answered in time"),
    (StoreFullError, 507, "store-full", "Events cannot be stored now"),
    (EventStoreError, 503, "store-unavailable", "The event store cannot be reached"),
    (IndexServerError, 503, "index-unavailable", "The item index cannot be reached"),
    (CatalogError, 507, "catalog-unwritable", "Items cannot be changed now"),
    (UnknownIdError, 422, "unknown-id", "Unknown id"),
    (ArgumentError, 422, "argument", "A field is not accepted"),
    (ConfigError, 422, "argument", "A field is not accepted"),
    (DataError, 422, "argument", "A field is not accepted"),
    (RetrievalError, 422, "argument", "A field is not accepted"),
)
"""Status, type and title by class, the first that fits."""

_FIRST_WORD = re.compile(r"([a-z_]+)\b")
_FIELDS = {
    *("user", "history", "times", "at", "time_zone", "k", "exclude_seen", "allow", "deny", "category"),
    *("columns", "context"),
    *("interests", "model", "item", "like", "vector", "path", "weight", "shadow", "limit", "before"),
}
_ALIASES = {"histories": "history", "users": "user", "items": "item"}
_RETRY_SECONDS = "1"
_MOST_ERRORS = 20


class FieldError(ArgumentError):
    """A field of a request is not accepted."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


def problem(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    title: str | None = None,
    request_id: str | None = None,
    field: str | None = None,
    errors: Sequence[dict[str, str]] = (),
) -> dict[str, Any]:
    """The members of a problem, in their order; those that are None or empty are left out."""
    phrase = HTTPStatus(status).phrase
    name = kind or phrase.lower().replace(" ", "-")
    found: dict[str, Any] = {
        "type": f"urn:recsys:problem:{name}",
        "title": title or phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
        "field": field,
        "errors": list(errors),
    }
    return {key: value for key, value in found.items() if value not in (None, [])}


def problem_of(error: RecsysError, request_id: str | None = None, *, in_path: bool = False) -> dict[str, Any]:
    """What an error of the library is over HTTP.

    Args:
        error: raised by the engine or a store.
        request_id: of the request.
        in_path: whether an id of the request's path may be meant, so that an unknown one is "not found".
    """
    status, kind, title = 500, "fault", "A fault of the service"
    for cls, *rest in _KINDS:
        if isinstance(error, cls):
            status, kind, title = rest  # type: ignore[assignment]
            break
    if in_path and isinstance(error, UnknownIdError):
        status = 404
    detail = str(error) if status != 500 else "the service could not answer; its log says why"
    field = _field(error) if status == 422 else None
    return problem(status, detail, kind=kind, title=title, request_id=request_id, field=field)


def retry_headers(status: int) -> dict[str, str]:
    """The headers that tell a caller who is turned away when to come back; none for other statuses."""
    return {"Retry-After": _RETRY_SECONDS} if status in (429, 503) else {}


def respond(found: dict[str, Any], path: str, headers: dict[str, str] | None = None) -> Response:
    """A problem as a response, in the form that the path speaks."""
    headers = retry_headers(found["status"]) | dict(headers or {})
    if path == "/v2" or path.startswith("/v2/"):
        return Response(to_json({"error": found["detail"]}), found["status"], headers, "application/json")
    return Response(to_json(found), found["status"], headers, MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Let an app answer errors as problems."""
    app.add_exception_handler(RecsysError, _library)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _fault)


async def answer_error(request: Request, error: RecsysError | HTTPException) -> Response:
    """What such an error is answered by, for routes that no app stands around."""
    return await (_library if isinstance(error, RecsysError) else _http)(request, error)


def fault(request_id: str) -> dict[str, Any]:
    """The problem of a request that the service is to blame for."""
    return problem(500, "the service could not answer; its log says why", kind="fault", request_id=request_id)


async def _fault(request: Request, error: Exception) -> Response:
    # The error itself goes on to the envelope, which logs it.
    return respond(fault(facts_of(request).request_id), request.url.path)


def _field(error: RecsysError) -> str | None:
    """Which field an error is about: what it says itself, else the word that it begins with."""
    named = getattr(error, "field", None)
    if named is not None:
        return str(named)
    found = _FIRST_WORD.match(str(error))
    word = _ALIASES.get(found[1], found[1]) if found else None
    return word if word in _FIELDS else None


async def _library(request: Request, error: Exception) -> Response:
    assert isinstance(error, RecsysError)
    facts = facts_of(request)
    found = problem_of(error, facts.request_id, in_path=bool(request.path_params))
    if found["status"] >= 500:
        # Of the others the client knows the reason; their text may name a user.
        facts.error = str(error)
    if isinstance(error, StoreFullError):
        request.app.state.service.events_writable = False
    facts.refused = str(found["type"]).rpartition(":")[2]
    return respond(found, request.url.path)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    text = error.detail if isinstance(error.detail, str) else phrase
    if text == phrase and error.status_code == 404:
        text = "there is nothing at this path; /docs lists what there is"
    if text == phrase and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        text = f"this path takes {allowed}, not {request.method}" if allowed else "not by this method"
    found = problem(error.status_code, text, request_id=facts_of(request).request_id)
    return respond(found, request.url.path, dict(error.headers or {}))


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = said_of_fields([each | {"loc": each["loc"][1:]} for each in error.errors()])
    first = said[0]
    detail = f"{first['field']}: {first['detail']}" if first["field"] else first["detail"]
    if len(said) > 1:
        detail += f" (and {len(said) - 1} more)"
    found = problem(
        422,
        detail,
        kind="argument",
        title="A field is not accepted",
        request_id=facts_of(request).request_id,
        field=first["field"] or None,
        errors=said[:_MOST_ERRORS],
    )
    return respond(found, request.url.path)


_UNION = ("int", "str", "bool", "float")
"""Members of a union, which are no fields."""


def said_of_fields(errors: Sequence[Any]) -> list[dict[str, str]]:
    """Pydantic's errors by field: which, and what is wrong with it."""
    by_place: dict[str, list[dict[str, Any]]] = {}
    for each in errors:
        by_place.setdefault(_place(each["loc"]), []).append(each)
    return [{"field": place, "detail": _said(found)} for place, found in by_place.items()]


def _place(loc: Sequence[int | str]) -> str:
    """Where in a request: body's parts of a union are left out, numbers are places of a list."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[a-z_0-9]+", part) and part not in _UNION:
            text += f".{part}" if text else part
    return text[:200]


def _said(errors: Sequence[dict[str, Any]]) -> str:
    kinds = {error["type"] for error in errors}
    if {"int_type", "string_type", "bool_type"} <= kinds:
        return "has to be text, a number, true or false, or null"
    if {"int_type", "string_type"} <= kinds:
        return "has to be a whole number or text"
    if "dict_type" in kinds:
        return "has to be an object"
    if "extra_forbidden" in kinds:
        return "is not a field of this request; /docs lists them"
    # Of the members of a union the one is meant whose type was right.
    meant = [error for error in errors if not error["type"].endswith("_type")] or errors
    return str(meant[0]["msg"]).removeprefix("Value error, ")[:300]
