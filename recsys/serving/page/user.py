"""A user's page: history, answers, what if, and the 24-hour clock."""

from datetime import UTC, tzinfo
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from recsys.errors import ArgumentError, RecsysError, UnknownIdError
from recsys.events.store import RawId
from recsys.serving.engine.asking import Engine, ModelInfo
from recsys.serving.http.ids import model_info, path_id
from recsys.serving.http.service import Service, service_of
from recsys.serving.page.choices import AT_LAST_EVENT, SIZES, Choices, choices_of
from recsys.serving.page.histories import read_history
from recsys.serving.page.ids import path_of
from recsys.serving.page.rendering import render, wants_part, zone_of
from recsys.serving.page.route_class import page_router
from recsys.serving.page.svg import clock_face
from recsys.serving.page.user_answers import answer

SHOWN = 500
"""Events of a history that the page lists, the latest."""

router = page_router()


@router.get("/ui/users/{text:path}")
async def user_page(
    request: Request,
    text: str,
    service: Annotated[Service, Depends(service_of)],
    choices: Annotated[Choices, Depends(choices_of)],
) -> Response:
    """The page of the user whose id the path holds."""
    return await _page(request, service, text, choices)


@router.get("/ui/users")
async def user_by_query(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    choices: Annotated[Choices, Depends(choices_of)],
    id: Annotated[str, Query(max_length=256)],
) -> Response:
    """The page of a user whose id no path can hold."""
    return await _page(request, service, id, choices)


async def _page(request: Request, service: Service, text: str, choices: Choices) -> Response:
    engine = service.engine
    info = model_info(engine, choices.model or None)
    user = path_id(text, info.user_ids_are_int, "user")
    done = await read_history(service, user, choices.model or None)
    if not done:
        erased = service.events is not None and service.events.erased(user)
        raise UnknownIdError(
            f"user {text[:64]!r}: " + ("was erased" if erased else "neither the log nor the events know one")
        )
    zone, zone_name = _zone(choices.zone, info)
    answers = await answer(engine, user, done, choices, info, zone)
    answering = model_info(engine, answers.answered.model)
    clock, why_none = await _clock(engine, user, answering, choices)
    values: dict[str, Any] = {
        "user": user,
        "path": path_of("users", user),
        "choices": choices,
        "answers": answers,
        "info": answering,
        "clock": clock,
        "why_no_clock": why_none,
        "at_last_event": AT_LAST_EVENT,
        "part": wants_part(request),
    }
    if wants_part(request):
        return render(request, "parts/user_answers.html", **values)
    return render(
        request,
        "user.html",
        **values,
        done=list(reversed(done))[:SHOWN],
        events=len(done),
        zone=zone,
        zone_name=zone_name,
        models=engine.models(),
        sizes=sorted({*SIZES, choices.k}),
    )


def _zone(name: str, info: ModelInfo) -> tuple[tzinfo, str]:
    """The zone that was asked for, else the log's, else UTC; with its name.

    Raises:
        ArgumentError: there is none of that name.
    """
    if name:
        zone = zone_of(name)
        if zone is None:
            raise ArgumentError(f"zone {name!r} is no time zone: write a name as Europe/Berlin, or +02:00")
        return zone, name
    named = info.details.get("time_zone")
    found = zone_of(named) if isinstance(named, str) else None
    return (found, str(named)) if found is not None else (UTC, "UTC")


async def _clock(
    engine: Engine, user: RawId, info: ModelInfo, choices: Choices
) -> tuple[dict[str, Any] | None, str]:
    """The face and legend of a user's clock, or None and why there is none."""
    if not info.reads_request_time:
        return None, "This model reads no hours: it answers the same at any time of day."
    try:
        found = await engine.clock(user, info.name)
    except RecsysError as error:
        return None, f"No clock: {error}"
    labels = [str(label) for label in found["labels"]]
    shares = [row["shares"] for row in found["hours"]]
    hour = None if choices.hour == AT_LAST_EVENT else choices.hour
    names: list[str | None] = list(labels)
    if found["kind"] == "item":
        known = [path_id(label, info.ids_are_int, "item") for label in labels if label != "other"]
        titles = await engine.title(known, info.name)
        names = [title or label for title, label in zip([*titles, None], labels, strict=False)]
    title = f"Clock of user {user}: what is read of each {found['kind']} at each of 24 local hours"
    return {
        "face": clock_face(shares, [name or "" for name in names], hour, title),
        "legend": [
            ("other" if label == "other" else str(place), name or label)
            for place, (label, name) in enumerate(zip(labels, names, strict=True))
        ],
        "kind": found["kind"],
        "events": found["events"],
    }, ""
