"""GET /v1/users/{user}/clock."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from recsys.serving.http.auth import requires
from recsys.serving.http.facts import facts_of
from recsys.serving.http.ids import model_info, path_id
from recsys.serving.http.quoted import QuotedRoute
from recsys.serving.http.responses import json_response, problems
from recsys.serving.http.service import Service, service_of

router = APIRouter(tags=["users"], dependencies=[Depends(requires("read"))], route_class=QuotedRoute)


@router.get("/v1/users/{user:path}/clock", response_model=dict[str, Any], responses=problems(404, 422, 504))
async def clock(
    user: str,
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    model: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Show what a user of the log prefers at each local hour, as `recsys clock --json` does.

    Only models with an interest clock have one; others are refused.
    """
    who = path_id(user, model_info(service.engine, model).user_ids_are_int, "user")
    facts_of(request).user = who
    return json_response(await service.engine.clock(who, model))
