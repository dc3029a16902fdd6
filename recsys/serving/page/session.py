"""Logging in with a key, and out: the page's cookie."""

from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from recsys.serving.http.keys import COOKIE, SESSION_SECONDS
from recsys.serving.page.rendering import render, wants_part
from recsys.serving.page.route_class import PageRoute

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/ui/login")
async def login_page(request: Request) -> Response:
    """The form, or the first page where no key is needed."""
    if request.app.state.keys is None:
        return RedirectResponse("/ui", 303)
    if wants_part(request):
        # A part was asked for after the session had ended: the browser goes to the form instead.
        return Response(status_code=204, headers={"HX-Redirect": "/ui/login"})
    return render(request, "login.html", wrong=False)


@router.post("/ui/login")
async def log_in(request: Request) -> Response:
    """Set the cookie for a key of this service."""
    keys = request.app.state.keys
    if keys is None:
        return RedirectResponse("/ui", 303)
    body = (await request.body()).decode("utf-8", "replace")
    secret = parse_qs(body, max_num_fields=4).get("key", [""])[0].strip()
    key = keys.of_secret(secret) if secret else None
    if key is None:
        return render(request, "login.html", 401, wrong=True)
    response = RedirectResponse("/ui", 303)
    response.set_cookie(
        COOKIE,
        keys.session(key),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/ui/logout")
async def log_out() -> Response:
    """Take the cookie away."""
    response = RedirectResponse("/ui/login", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
