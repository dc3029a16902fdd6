"""GET /v1/items/{item}, GET /v1/items/{item}/similar."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from recsys.serving.http.auth import requires
from recsys.serving.http.ids import model_info, path_id
from recsys.serving.http.responses import json_response, problems
from recsys.serving.http.schemas import MOST_K, SimilarAnswer, items_json
from recsys.serving.http.service import Service, service_of

router = APIRouter(tags=["items"], dependencies=[Depends(requires("read"))])

Model = Annotated[
    str | None, Query(max_length=64, description="Whose catalog; the default model's if left out.")
]


class ItemKnown(BaseModel):
    """An item of the catalog."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"item": 50, "title": "Star Wars", "model": "default"}]}
    )

    item: int | str
    title: str | None
    model: str


@router.get("/v1/items/{item}", response_model=ItemKnown, responses=problems(404, 422))
async def item(item: str, service: Annotated[Service, Depends(service_of)], model: Model = None) -> Response:
    """Show an item that may be answered."""
    info = model_info(service.engine, model)
    known = path_id(item, info.ids_are_int, "item")
    # Whatever has neighbours may be answered; everything else is refused here.
    await service.engine.similar(known, 1, model)
    (title,) = await service.engine.title([known], model)
    return json_response({"item": known, "title": title, "model": info.name})


@router.get("/v1/items/{item}/similar", response_model=SimilarAnswer, responses=problems(404, 422, 504))
async def similar(
    item: str,
    service: Annotated[Service, Depends(service_of)],
    k: Annotated[int, Query(ge=1, le=MOST_K, description="Answers.")] = 10,
    model: Model = None,
) -> Response:
    """List the items nearest to one, by the cosine of their vectors."""
    known = path_id(item, model_info(service.engine, model).ids_are_int, "item")
    found = await service.engine.similar(known, k, model)
    return json_response({"item": known, "items": items_json(found)})
