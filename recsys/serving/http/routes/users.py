"""GET /v1/users/{user}/history, DELETE /v1/users/{user}."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from recsys.errors import UnknownIdError
from recsys.events.store import RawId
from recsys.serving.http.auth import requires
from recsys.serving.http.facts import facts_of
from recsys.serving.http.histories import known_events
from recsys.serving.http.ids import model_info, path_id
from recsys.serving.http.quoted import QuotedRoute
from recsys.serving.http.responses import json_response, problems
from recsys.serving.http.schemas import MOST_K
from recsys.serving.http.service import Service, service_of
from recsys.serving.http.storing import written

router = APIRouter(tags=["users"], route_class=QuotedRoute)


class KnownEventAnswer(BaseModel):
    """One event of a user."""

    item: int | str
    title: str | None = None
    time: int | None = Field(None, description="Unix seconds, where the log has any.")
    type: str | None = None
    seq: int | None = Field(None, description="Place in the event store; null for events of the log.")


class HistoryPage(BaseModel):
    """Newest events of a user, newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user": 42,
                    "total": 99,
                    "events": [
                        {"item": 50, "title": "Star Wars", "time": 893286638, "type": "view", "seq": 7}
                    ],
                    "before": 98,
                }
            ]
        }
    )

    user: int | str
    total: int = Field(description="Events known of the user.")
    events: list[KnownEventAnswer]
    before: int | None = Field(description="Asks for the next page; null at the end.")


class ErasedAnswer(BaseModel):
    """What was erased."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": 42, "deleted": 3, "erased": True}]})

    user: int | str
    deleted: int = Field(description="Events deleted from the event store.")
    erased: bool = Field(description="What the training log holds of the user is not read any more.")


@router.get(
    "/v1/users/{user:path}/history",
    response_model=HistoryPage,
    responses=problems(404, 422),
    dependencies=[Depends(requires("read"))],
)
async def history(
    user: str,
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    limit: Annotated[int, Query(ge=1, le=MOST_K)] = 100,
    before: Annotated[int | None, Query(ge=0, lt=2**63, description="Of the page before.")] = None,
    model: Annotated[str | None, Query(max_length=64, description="Whose log is read.")] = None,
) -> Response:
    """Show what is known of a user: events of the log and those that came in since, newest first."""
    who = _user(user, service, request, model)
    known = await known_events(service, who, model)
    if not known:
        raise UnknownIdError(f"user {user[:64]!r}: neither the log nor the event store holds an event")
    end = len(known) if before is None else min(before, len(known))
    start = max(0, end - limit)
    shown = known[start:end]
    titles = await service.engine.title([each.item for each in shown], model)
    return json_response(
        {
            "user": who,
            "total": len(known),
            "events": [
                {"item": e.item, "title": title, "time": e.time, "type": e.type, "seq": e.seq}
                for e, title in zip(reversed(shown), reversed(titles), strict=True)
            ],
            "before": start or None,
        }
    )


@router.delete(
    "/v1/users/{user:path}",
    response_model=ErasedAnswer,
    responses=problems(404, 507),
    dependencies=[Depends(requires("write"))],
)
async def erase(user: str, request: Request, service: Annotated[Service, Depends(service_of)]) -> Response:
    """Erase a user: their events are deleted, and what a training log holds of them is not read any more.

    Events that come in later count again.
    """
    store = written(service)
    who = _user(user, service, request, None)
    erased = await run_in_threadpool(store.erased, who)
    if not erased and not await known_events(service, who):
        raise UnknownIdError(f"user {user[:64]!r}: neither the log nor the event store holds an event")
    deleted = await run_in_threadpool(store.erase, who)
    return json_response({"user": who, "deleted": deleted, "erased": True})


def _user(text: str, service: Service, request: Request, model: str | None) -> RawId:
    who = path_id(text, model_info(service.engine, model).user_ids_are_int, "user")
    facts_of(request).user = who
    return who
