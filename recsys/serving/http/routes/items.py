"""GET, PUT and DELETE /v1/items/{item}, GET /v1/items/{item}/similar."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.responses import Response

from recsys.errors import UnknownIdError
from recsys.events.store import RawId
from recsys.serving.engine.asking import ModelInfo, NewItem
from recsys.serving.http.auth import requires
from recsys.serving.http.ids import check_new_id, check_type, model_info, path_id
from recsys.serving.http.problems import FieldError
from recsys.serving.http.quoted import QuotedRoute
from recsys.serving.http.responses import json_response, problems
from recsys.serving.http.schemas import MOST_K, Id, SimilarAnswer, Strict, Text, items_json
from recsys.serving.http.service import Service, service_of

MOST_LIKE = 1000
MOST_WIDTH = 16_384
MOST_TITLE = 1000
MOST_TEXT = 10_000
MOST_COLUMNS = 64

Number = Annotated[float, Field(ge=-3e38, le=3e38, allow_inf_nan=False)]

router = APIRouter(tags=["items"], route_class=QuotedRoute)

_READ, _WRITE = [Depends(requires("read"))], [Depends(requires("write"))]

Model = Annotated[
    str | None, Query(max_length=64, description="Whose catalog; the default model's if left out.")
]


class ItemKnown(BaseModel):
    """An item of the catalog."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "item": 50,
                    "title": "Star Wars",
                    "category": ["Action", "Sci-Fi"],
                    "events": 583,
                    "model": "default",
                }
            ]
        }
    )

    item: int | str
    title: str | None
    category: list[str] = Field(description="Those that the item is found under.")
    events: int = Field(description="Of the training log; 0 for an item that came since.")
    model: str


class ItemBody(Strict):
    """What an item is: features, a vector or the items that it is like, a category, or one of both kinds."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"like": [50, 181]},
                {"category": "Comedy"},
                {"like": [50], "title": "Rogue One"},
                {"features": {"genres": ["Action", "Sci-Fi"], "title": "Rogue One"}},
            ]
        },
    )

    like: Annotated[list[Id], Field(min_length=1, max_length=MOST_LIKE)] | None = Field(
        None, description="Items of the catalog; it gets their mean vector."
    )
    vector: (
        Annotated[
            list[Number],
            Field(min_length=1, max_length=MOST_WIDTH),
        ]
        | None
    ) = Field(None, description="In the space of the index's vectors.")
    category: Text | None = Field(
        None,
        description="Of the catalog's. A new item is found under it, and gets the mean vector of its items "
        "if neither like nor vector is sent. An item of the log keeps its own.",
    )
    features: (
        Annotated[
            dict[
                Text,
                Annotated[StrictStr, Field(max_length=MOST_TEXT)]
                | Annotated[list[Text], Field(max_length=MOST_LIKE)]
                | Annotated[list[Number], Field(min_length=1, max_length=MOST_WIDTH)],
            ],
            Field(min_length=1, max_length=MOST_COLUMNS),
        ]
        | None
    ) = Field(
        None,
        description="Of a model of items with features: the columns that its log was prepared with, tags as "
        "a list or text with | between, words as text, a vector under its column's name or as vector. A new "
        "item gets the vector that the model makes of them, and is read in histories from then on.",
    )
    title: Annotated[StrictStr, Field(min_length=1, max_length=MOST_TITLE)] | None = Field(
        None, description="What answers call a new item. An item of the log keeps its own."
    )


class CatalogAnswer(BaseModel):
    """A catalog that was changed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"item": 5000, "model": "default", "version": "ad90fdefd7d9", "items": 1683}]
        }
    )

    item: int | str
    model: str
    version: str = Field(description="Of the model with this catalog; answers of it name it.")
    items: int = Field(description="Items that may be answered now.")


@router.get(
    "/v1/items/{item:path}/similar",
    response_model=SimilarAnswer,
    responses=problems(404, 422, 504),
    dependencies=_READ,
)
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


@router.get(
    "/v1/items/{item:path}", response_model=ItemKnown, responses=problems(404, 422), dependencies=_READ
)
async def item(item: str, service: Annotated[Service, Depends(service_of)], model: Model = None) -> Response:
    """Show an item that may be answered."""
    info = model_info(service.engine, model)
    known = path_id(item, info.ids_are_int, "item")
    found = await service.engine.item(known, model)
    if not found.answerable:
        raise UnknownIdError(f"item {item[:64]!r} was removed: it is not answered")
    return json_response(
        {
            "item": known,
            "title": found.title,
            "category": list(found.categories),
            "events": found.events,
            "model": info.name,
        }
    )


@router.put(
    "/v1/items/{item:path}",
    response_model=CatalogAnswer,
    responses=problems(400, 404, 413, 415, 422, 507),
    dependencies=_WRITE,
)
async def put(
    item: str, body: ItemBody, service: Annotated[Service, Depends(service_of)], model: Model = None
) -> Response:
    """Let an item be answered from now on, or give one that is answered another vector.

    It is saved in the run folder, beside the index. The run is opened again for it, and answers under another
    version: in this worker when this returns, in the others within a second and the time of loading.
    """
    info = model_info(service.engine, model)
    new = path_id(item, info.ids_are_int, "item")
    check_new_id(new)
    if body.like is not None and body.vector is not None:
        raise FieldError("vector", "send like or vector, not both")
    if body.features is not None and (body.like is not None or body.vector is not None):
        raise FieldError("features", "send features, or one of like and vector, not both")
    if body.like is None and body.vector is None and body.category is None and body.features is None:
        raise FieldError("like", "send like, vector, features or category: nothing says what the item is")
    check_type("like", body.like or (), info.ids_are_int)
    if body.category is not None and body.category not in info.categories:
        raise FieldError("category", f"{body.category[:64]!r} is not one of the catalog's")
    asked = NewItem(
        vector=body.vector,
        like=body.like,
        category=body.category,
        title=body.title,
        features=body.features,
    )
    return _changed(new, await service.engine.put_item(new, asked, info.name))


@router.delete(
    "/v1/items/{item:path}",
    response_model=CatalogAnswer,
    responses=problems(404, 422, 507),
    dependencies=_WRITE,
)
async def remove(
    item: str, service: Annotated[Service, Depends(service_of)], model: Model = None
) -> Response:
    """Let an item be answered no more, in the way of PUT. Histories may still hold it."""
    info = model_info(service.engine, model)
    known = path_id(item, info.ids_are_int, "item")
    return _changed(known, await service.engine.remove_item(known, info.name))


def _changed(item: RawId, info: ModelInfo) -> Response:
    return json_response({"item": item, "model": info.name, "version": info.version, "items": info.n_items})
