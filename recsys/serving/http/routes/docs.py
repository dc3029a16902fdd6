"""/docs: the API's page, from files of this package; nothing is fetched from elsewhere."""

from collections.abc import AsyncIterator
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from recsys.serving.engine.asking import BusyError

router = APIRouter(include_in_schema=False)

_TYPES = {
    "docs.html": "text/html; charset=utf-8",
    "begin.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}


_PART = 64 * 1024
"""Bytes that are sent at a time: a client that does not read costs some of these, and not the whole file."""
_MOST = 32
"""Files that a worker sends at the same time: this needs no key."""
_sending = 0


@cache
def _content(name: str) -> bytes:
    return files("recsys.serving.http").joinpath("assets", name).read_bytes()


def _file(name: str) -> Response:
    if _sending >= _MOST:
        raise BusyError("many read this at the same time: ask again later")
    content = _content(name)
    headers = {"Cache-Control": "public, max-age=3600", "Content-Length": str(len(content))}
    return StreamingResponse(_parts(content), headers=headers, media_type=_TYPES[name])


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    global _sending
    _sending += 1
    try:
        for start in range(0, len(content), _PART):
            yield content[start : start + _PART]
    finally:
        _sending -= 1


@router.get("/docs")
async def docs() -> Response:
    """Show every route, and try it."""
    return _file("docs.html")


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A file of the page."""
    if name not in _TYPES:
        raise HTTPException(404, "there is no such file")
    return _file(name)
