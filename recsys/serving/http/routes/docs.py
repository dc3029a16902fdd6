"""/docs: the API's page, from files of this package; nothing is fetched from elsewhere."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

_TYPES = {
    "docs.html": "text/html; charset=utf-8",
    "begin.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}


def _file(name: str) -> Response:
    content = files("recsys.serving.http").joinpath("assets", name).read_bytes()
    headers = {"Cache-Control": "public, max-age=3600"}
    return Response(content, headers=headers, media_type=_TYPES[name])


@router.get("/docs")
def docs() -> Response:
    """Show every route, and try it."""
    return _file("docs.html")


@router.get("/docs/{name}")
def asset(name: str) -> Response:
    """A file of the page."""
    if name not in _TYPES:
        raise HTTPException(404, "there is no such file")
    return _file(name)
