"""/livez, /readyz, /startupz: whether to restart it, whether to send it requests, whether it has begun."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from recsys.serving.http.responses import json_response
from recsys.serving.http.service import Service, service_of

router = APIRouter(tags=["health"])

DEAD_SECONDS = 60.0
"""Age of the compute thread's last sign of life after which the process is better started anew."""

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Yes.", "content": {"application/json": {"example": {"status": "ok"}}}},
    503: {"description": "No; `detail` says why."},
}


def why_not_ready(service: Service) -> str | None:
    """None if requests can be taken, else why not."""
    if service.draining:
        return "ending"
    return service.engine.ready() or (None if service.started else "other workers are loading")


@router.get("/livez", responses=_ANSWERS)
async def live(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Tell whether the process works: that this is answered at all, and that its compute thread is alive.

    No store is asked: a process does not come back to life by being restarted for another one's fault.
    """
    age = service.engine.heartbeat_age()
    if age > DEAD_SECONDS:
        return json_response(
            {"status": "dead", "detail": f"the compute thread gave no sign of life for {age:.0f} s"}, 503
        )
    return json_response({"status": "ok"})


@router.get("/readyz", responses=_ANSWERS)
async def ready(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Tell whether requests can be taken: loaded, warm, not ending, with room in the queue.

    While a service begins it is 503 until every worker is ready. A worker that takes the place of one that
    ended listens only when it is ready, so that the answer stays 200.

    Where events cannot be stored or read it is "degraded": they are refused, and what needs no event is
    answered. Another instance would not do better, so that is 200.
    """
    why = why_not_ready(service)
    if why is not None:
        return json_response({"status": "unready", "detail": why}, 503)
    if service.events is not None and not service.events_readable:
        return json_response(
            {"status": "degraded", "detail": "events cannot be read now, and who asks for a user is refused"}
        )
    if service.events is not None and not service.events_writable:
        return json_response({"status": "degraded", "detail": "events cannot be stored now"})
    return json_response({"status": "ok"})


@router.get("/startupz", responses=_ANSWERS)
async def started(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Tell whether the first model is loaded."""
    if service.engine.models():
        return json_response({"status": "ok"})
    return json_response({"status": "loading", "detail": service.engine.ready() or "loading"}, 503)
