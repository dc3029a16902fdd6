"""GET /v1/models, DELETE /v1/models/{name}, POST /v1/models/{name}/load and /rollback."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.responses import Response

from recsys.serving.engine.asking import ModelInfo
from recsys.serving.http.auth import requires
from recsys.serving.http.responses import json_response, problems
from recsys.serving.http.schemas import Strict
from recsys.serving.http.service import Service, service_of

router = APIRouter(tags=["models"], dependencies=[Depends(requires("admin"))])

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Of a model.")]

_EXAMPLE: dict[str, Any] = {
    "name": "default",
    "version": "ad90fdefd7d9",
    "path": "/srv/runs/monday",
    "encoder": "sasrec",
    "items": 3416,
    "users": 6040,
    "width": 128,
    "weight": 1.0,
    "shadow": 0.0,
    "event_columns": ["action"],
    "context_columns": ["device"],
    "loaded": 1764400000.0,
}


class ModelAnswer(BaseModel):
    """A model in service."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: str
    version: str = Field(description="Other weights, another log or another index have another one.")
    path: str
    encoder: str
    items: int = Field(description="Items that may be answered.")
    users: int = Field(description="Users of its log.")
    width: int = Field(description="Of its states.")
    weight: float = Field(description="Share of the users, out of the sum of all weights.")
    shadow: float = Field(description="Percent of requests that it is asked beside another model.")
    event_columns: list[str] = Field(description="Columns of events that it reads.")
    context_columns: list[str] = Field(description="Columns of requests and users that it reads.")
    loaded: float = Field(description="Unix seconds.")


class ModelsAnswer(BaseModel):
    """All models in service, the default first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"models": [_EXAMPLE]}]})

    models: list[ModelAnswer]


class UnloadedAnswer(BaseModel):
    """A model that is not in service any more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "candidate", "unloaded": True}]})

    name: str
    unloaded: bool


class LoadBody(Strict):
    """Which run to load, and whom it is to answer."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"examples": [{"path": "tuesday"}, {"path": "tuesday", "weight": 10}]},
    )

    path: Annotated[StrictStr, Field(min_length=1, max_length=1024)] | None = Field(
        None,
        description="Of the run folder: under the folder of --models, or from there. Left out it is the"
        " folder that the model has, loaded again, or for a new name the one that is called so.",
    )
    weight: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = Field(
        None, description="Share of the users; left out it stays, and is 0 for a new name."
    )
    shadow: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = Field(
        None, description="Percent of requests to be asked beside another model; left out it stays."
    )


@router.get("/v1/models", response_model=ModelsAnswer, responses=problems())
async def models(service: Annotated[Service, Depends(service_of)]) -> Response:
    """List the models in service."""
    return json_response({"models": [_shown(info) for info in service.engine.models()]})


@router.post("/v1/models/{name}/load", response_model=ModelAnswer, responses=problems(400, 413, 415, 422))
async def load(name: Name, body: LoadBody, service: Annotated[Service, Depends(service_of)]) -> Response:
    """Load a run and let it answer under a name, without a request lost; what fails changes nothing.

    It is checked and warmed up first, by the last requests that came in. This worker answers by it from now
    on, the others within a second and the time of loading.
    """
    return json_response(_shown(await service.engine.load_model(name, body.path, body.weight, body.shadow)))


@router.delete("/v1/models/{name}", response_model=UnloadedAnswer, responses=problems(404, 422))
async def unload(name: Name, service: Annotated[Service, Depends(service_of)]) -> Response:
    """Let a model go that is not the default. The others share its users."""
    await service.engine.unload_model(name)
    return json_response({"name": name, "unloaded": True})


@router.post("/v1/models/{name}/rollback", response_model=ModelAnswer, responses=problems(404, 422))
async def rollback(name: Name, service: Annotated[Service, Depends(service_of)]) -> Response:
    """Let the model answer again that answered under a name before."""
    return json_response(_shown(await service.engine.roll_back(name)))


def _shown(info: ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "path": info.path,
        "encoder": info.encoder,
        "items": info.n_items,
        "users": info.n_users,
        "width": info.width,
        "weight": info.weight,
        "shadow": info.shadow,
        "event_columns": list(info.event_columns),
        "context_columns": list(info.context_columns),
        "loaded": info.loaded,
    }
