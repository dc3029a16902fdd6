"""An item's page: what it is, and its neighbours."""

from typing import Annotated

from fastapi import Depends, Query, Request, Response

from recsys.serving.http.ids import model_info, path_id
from recsys.serving.http.service import Service, service_of
from recsys.serving.page.rendering import render
from recsys.serving.page.route_class import page_router

router = page_router()


@router.get("/ui/items/{text:path}")
async def item_page(
    request: Request,
    text: str,
    service: Annotated[Service, Depends(service_of)],
    k: Annotated[int, Query(ge=1, le=1000)] = 20,
    model: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """The page of the item whose id the path holds."""
    return await _page(request, service, text, k, model)


@router.get("/ui/items")
async def item_by_query(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    id: Annotated[str, Query(max_length=256)],
    k: Annotated[int, Query(ge=1, le=1000)] = 20,
    model: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """The page of an item whose id no path can hold."""
    return await _page(request, service, id, k, model)


async def _page(request: Request, service: Service, text: str, k: int, model: str) -> Response:
    engine = service.engine
    info = model_info(engine, model or None)
    item = path_id(text, info.ids_are_int, "item")
    found = await engine.item(item, info.name)
    near = await engine.similar(item, k, info.name)
    return render(
        request,
        "item.html",
        item=item,
        title=found.title,
        categories=found.categories,
        near=near,
        count=found.events,
        info=info,
    )
