"""Templates to answers: every text is escaped, and no page can load or run what is not ours."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from recsys.serving.page.ids import path_of, with_query

STATIC_TYPES = {
    "htmx.min.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@cache
def static_file(name: str) -> bytes:
    """Content of one of `STATIC_TYPES`."""
    return files("recsys.serving.page").joinpath("static", name).read_bytes()


@cache
def static_path(name: str) -> str:
    """Address of a static file: it changes with the content, so that a browser may keep it for ever."""
    return f"/ui/static/{name}?v={hashlib.sha256(static_file(name)).hexdigest()[:12]}"


def local_time(seconds: int | None, zone: tzinfo) -> str:
    """Unix seconds as a date and time in a zone; a dash where there is none or no calendar has it."""
    if seconds is None:
        return "—"
    try:
        return (
            (datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds))
            .astimezone(zone)
            .strftime("%Y-%m-%d %H:%M")
        )
    except (OverflowError, ValueError):
        return "—"


def zone_of(name: str) -> tzinfo | None:
    """The time zone of an IANA name or ``+HH:MM``; None if there is none of that name."""
    try:
        if name[:1] in "+-" and name:
            return timezone(datetime.strptime(name, "%z").utcoffset() or timedelta())
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("recsys.serving.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        path_of=path_of, with_query=with_query, static_path=static_path, local_time=local_time
    )
    return made


def wants_part(request: Request) -> bool:
    """Whether htmx asks for a part of a page, to be put into the one that is shown."""
    return request.headers.get("HX-Request") == "true" and request.headers.get("HX-Request-Type") != "full"


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template as an answer.

    Args:
        request: what is answered.
        template: name below templates/.
        status: of the answer.
        values: what the template reads.
    """
    values = {"query": "", "keyed": request.app.state.keys is not None, "status": status} | values
    text = _environment().get_template(template).render(**values)
    return HTMLResponse(text, status, {"Vary": "HX-Request"})
