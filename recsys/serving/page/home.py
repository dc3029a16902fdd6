"""The first page: search, the models in service, and the last minutes as curves."""

import os
import time
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from recsys.serving.http.service import Service, service_of
from recsys.serving.page.live import panels
from recsys.serving.page.rendering import render, wants_part
from recsys.serving.page.route_class import page_router

FOUND = 12
"""Users, and items, that a search lists."""
_FIGURES = ("hr@10", "ndcg@10", "mrr@10")

router = page_router()


@router.get("/")
async def root() -> Response:
    """To the first page."""
    return RedirectResponse("/ui", 303)


@router.get("/ui")
async def home_page(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    q: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """Search, models, curves."""
    found = await _search(service, q.strip())
    if wants_part(request):
        return render(request, "parts/found.html", query=q.strip(), **found)
    return render(
        request,
        "home.html",
        query=q.strip(),
        **found,
        models=[_card(info) for info in service.engine.models()],
        why=service.engine.ready(),
        **_live(service),
    )


@router.get("/ui/traffic")
async def traffic_part(request: Request, service: Annotated[Service, Depends(service_of)]) -> Response:
    """The curves alone."""
    return render(request, "parts/live.html", **_live(service))


@router.get("/ui/suggest")
async def suggestions(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    item: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """Items for the what-if field while its text is typed."""
    found = await service.engine.search_items(item.strip(), FOUND) if item.strip() else []
    return render(request, "parts/suggestions.html", items=found)


async def _search(service: Service, text: str) -> dict[str, Any]:
    if not text or not service.engine.models():
        return {"users": [], "items": []}
    engine = service.engine
    return {"users": await engine.search_users(text, FOUND), "items": await engine.search_items(text, FOUND)}


def _live(service: Service) -> dict[str, Any]:
    return {
        "panels": panels(service.traffic.curves()),
        "worker": os.getpid(),
        "workers": service.settings.workers,
    }


def _card(info: Any) -> dict[str, Any]:
    """A model and the figures of its report, beside those of the most popular items."""
    report = info.details
    metrics = report.get("metrics") or {}
    confidence = report.get("confidence") or {}
    popular = (report.get("popularity") or {}).get("kept") or {}
    figures = [
        {
            "name": name.upper(),
            "value": metrics[name],
            "low": (confidence.get(name) or [None, None])[0],
            "high": (confidence.get(name) or [None, None])[1],
            "popular": popular.get(name),
        }
        for name in _FIGURES
        if name in metrics
    ]
    age = max(0, int(time.time() - info.loaded))
    return {
        "info": info,
        "figures": figures,
        "dataset": report.get("dataset"),
        "users": report.get("users"),
        "age": age,
    }
