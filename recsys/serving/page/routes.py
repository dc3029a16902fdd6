"""Every route of the page, and its static files."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from recsys.serving.page import events, home, item, session, user
from recsys.serving.page.rendering import STATIC_TYPES, static_file
from recsys.serving.page.route_class import error_page, page_router

router = APIRouter(include_in_schema=False)
for part in (home, user, item, events, session):
    router.include_router(part.router)


@router.get("/ui/static/{name}")
async def static(name: str) -> Response:
    """A file of the page; its address changes with its content."""
    if name not in STATIC_TYPES:
        raise HTTPException(404, "there is no such file")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(static_file(name), headers=headers, media_type=STATIC_TYPES[name])


_others = page_router()


@_others.get("/ui/{rest:path}")
async def nothing(request: Request) -> Response:
    """What stands at no other address of the page."""
    return error_page(request, 404, "There is no such page.")


router.include_router(_others)
