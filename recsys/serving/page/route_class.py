"""What every route of the page shares: its errors are pages, too."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from recsys.errors import RecsysError
from recsys.serving.http.auth import requires
from recsys.serving.http.facts import facts_of
from recsys.serving.http.problems import problem_of, retry_headers
from recsys.serving.page.rendering import render, wants_part

_TITLES = {
    403: "Not with this key",
    404: "Not found",
    422: "That cannot be asked",
    503: "Not now",
    504: "Not answered in time",
}


class PageRoute(APIRoute):
    """A route whose errors are answered for people: a page, or a part of one where htmx asks."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with what it raises made a page."""
        handler = super().get_route_handler()

        async def answering(request: Request) -> Response:
            try:
                return await handler(request)
            except RecsysError as error:
                found = problem_of(error, in_path=bool(request.path_params or "id" in request.query_params))
                if found["status"] >= 500:
                    # Of the others the reader knows the reason; their text may name a user.
                    facts_of(request).error = str(error)
                return error_page(request, found["status"], found["detail"])
            except HTTPException as error:
                return error_page(request, error.status_code, str(error.detail))
            except RequestValidationError as error:
                first = error.errors()[0]
                return error_page(request, 422, f"{first['loc'][-1]}: {first['msg']}")

        return answering


def page_router() -> APIRouter:
    """A router of pages, which all need the scope "read"."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[Depends(requires("read"))])


def error_page(request: Request, status: int, detail: str) -> Response:
    """What went wrong, as a page or as a part of one."""
    template = "parts/error.html" if wants_part(request) else "error.html"
    page = render(request, template, status, title=_TITLES.get(status, "Not answered"), detail=detail)
    page.headers.update(retry_headers(status))
    return page
