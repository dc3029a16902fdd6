"""The last events that came in, of everybody."""

from datetime import UTC
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from recsys.serving.http.service import Service, service_of
from recsys.serving.page.rendering import render, wants_part
from recsys.serving.page.route_class import page_router

PAGE = 100

router = page_router()


@router.get("/ui/events")
async def events_page(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> Response:
    """Events with a lower place than `before`, newest first."""
    store = service.events
    rows = [] if store is None else await run_in_threadpool(store.recent, PAGE, before)
    titles: list[str | None] = [None] * len(rows)
    if rows and service.engine.models():
        titles = await service.engine.title([row.event.item for row in rows])
    return render(
        request,
        "parts/event_rows.html" if wants_part(request) else "events.html",
        kept=store is not None,
        rows=list(zip(rows, titles, strict=True)),
        older=rows[-1].seq if len(rows) == PAGE else None,
        newest=before is None,
        zone=UTC,
    )
