"""Routes under /v2."""

import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from recsys import __version__
from recsys.serving.engine.runs import runs_of
from recsys.serving.http.auth import requires
from recsys.serving.http.facts import facts_of
from recsys.serving.http.routes.health import DEAD_SECONDS, why_not_ready
from recsys.serving.http.service import Service, service_of
from recsys.serving.oip.documented import INDEX, INFER, LOAD
from recsys.serving.oip.errors import ProtocolError
from recsys.serving.oip.inference import Inferred, infer
from recsys.serving.oip.messages import InferRequest, read_object, read_request, write_response
from recsys.serving.oip.models import OfferedModel, find_model, offered_models
from recsys.serving.oip.route import FAILURES, ProtocolRoute
from recsys.serving.oip.statistics import Statistics, Timing

HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ("binary_tensor_data", "parameters", "statistics", "model_repository")
_UNLOADS = ("unload_dependents",)
"""Parameters of clients that mean nothing here: no model depends on another."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

router = APIRouter(
    prefix="/v2", route_class=ProtocolRoute, tags=["Open Inference Protocol"], responses=FAILURES
)
READ, ADMIN = Depends(requires("read")), Depends(requires("admin"))
ServiceOf = Annotated[Service, Depends(service_of)]


async def statistics_of(request: Request) -> Statistics:
    """Statistics of this worker."""
    state = request.app.state
    if not hasattr(state, "oip_statistics"):
        state.oip_statistics = Statistics()
    found: Statistics = state.oip_statistics
    return found


StatisticsOf = Annotated[Statistics, Depends(statistics_of)]


@router.get("")
async def server_metadata() -> dict[str, Any]:
    """Name and version of the server, and the extensions that it speaks."""
    return {"name": "recsys", "version": __version__, "extensions": list(EXTENSIONS)}


@router.get("/health/live")
async def server_live(service: ServiceOf) -> Response:
    """Whether the process works."""
    alive = service.engine.heartbeat_age() <= DEAD_SECONDS
    return JSONResponse({"live": alive}, status_code=200 if alive else 503)


@router.get("/health/ready")
async def server_ready(service: ServiceOf) -> Response:
    """Whether models can be asked."""
    why_not = why_not_ready(service)
    if why_not is None:
        return JSONResponse({"live": True, "ready": True})
    return JSONResponse({"live": True, "ready": False, "error": why_not}, status_code=503)


@router.get("/models", dependencies=[READ])
async def list_models(service: ServiceOf) -> dict[str, Any]:
    """Names of all models."""
    return {"models": [model.name for model in offered_models(service.engine.models())]}


@router.get("/models/stats", dependencies=[READ])
async def all_statistics(service: ServiceOf, statistics: StatisticsOf) -> dict[str, Any]:
    """Counts and times of all models."""
    models = offered_models(service.engine.models())
    return {
        "model_stats": [
            entry for model in models for entry in statistics.described(model.name, model.versions)
        ]
    }


@router.get("/models/{model}", dependencies=[READ])
async def model_metadata(model: str, service: ServiceOf) -> dict[str, Any]:
    """Inputs and outputs of a model."""
    return find_model(service.engine.models(), model).metadata()


@router.get("/models/{model}/versions/{version}", dependencies=[READ])
async def version_metadata(model: str, version: str, service: ServiceOf) -> dict[str, Any]:
    """Inputs and outputs of a model's version."""
    return find_model(service.engine.models(), model, version).metadata()


@router.get("/models/{model}/ready", dependencies=[READ])
async def model_ready(model: str, service: ServiceOf) -> Response:
    """Whether a model can be asked."""
    return _ready(service, find_model(service.engine.models(), model))


@router.get("/models/{model}/versions/{version}/ready", dependencies=[READ])
async def version_ready(model: str, version: str, service: ServiceOf) -> Response:
    """Whether a model's version can be asked."""
    return _ready(service, find_model(service.engine.models(), model, version))


@router.get("/models/{model}/stats", dependencies=[READ])
async def model_statistics(model: str, service: ServiceOf, statistics: StatisticsOf) -> dict[str, Any]:
    """Counts and times of a model."""
    found = find_model(service.engine.models(), model)
    return {"model_stats": statistics.described(found.name, found.versions)}


@router.get("/models/{model}/versions/{version}/stats", dependencies=[READ])
async def version_statistics(
    model: str, version: str, service: ServiceOf, statistics: StatisticsOf
) -> dict[str, Any]:
    """Counts and times of a model's version."""
    found = find_model(service.engine.models(), model, version)
    return {"model_stats": statistics.described(found.name, found.versions)}


@router.post("/models/{model}/infer", dependencies=[READ], openapi_extra=INFER)
async def infer_model(model: str, request: Request, service: ServiceOf, statistics: StatisticsOf) -> Response:
    """Ask a model."""
    return await _infer(request, service, statistics, find_model(service.engine.models(), model))


@router.post("/models/{model}/versions/{version}/infer", dependencies=[READ], openapi_extra=INFER)
async def infer_version(
    model: str, version: str, request: Request, service: ServiceOf, statistics: StatisticsOf
) -> Response:
    """Ask a model's version."""
    return await _infer(request, service, statistics, find_model(service.engine.models(), model, version))


@router.post("/repository/index", dependencies=[READ], openapi_extra=INDEX)
async def repository_index(request: Request, service: ServiceOf) -> list[dict[str, str]]:
    """All models, and whether they can be asked; with `{"ready": true}`, only those that can.

    Runs of the service's folder that are not loaded stand at the end, by the name that loads them.
    """
    body = await request.body()
    only_ready = read_object(body).get("ready", False) if body else False
    if not isinstance(only_ready, bool):
        raise ProtocolError("ready must be true or false")
    why_not = why_not_ready(service)
    if why_not is not None and only_ready:
        return []
    infos = service.engine.models()
    found = [
        {
            "name": model.name,
            "version": version,
            "state": "READY" if why_not is None else "UNAVAILABLE",
            "reason": why_not or "",
        }
        for model in offered_models(infos)
        for version in model.versions
    ]
    if not only_ready:
        loaded = {info.name for info in infos}
        there = await run_in_threadpool(runs_of, service.settings.models_dir)
        found += [
            {"name": name, "state": "UNAVAILABLE", "reason": "not loaded"}
            for name in there
            if name not in loaded
        ]
    return found


@router.post("/repository/models/{model}/load", dependencies=[ADMIN], openapi_extra=LOAD)
async def load_model(model: str, request: Request, service: ServiceOf) -> dict[str, Any]:
    """Load the run of a model again, or one of the service's folder under its own name.

    It is asked as `NAME.recommend` and so on; /v1/models gives it users of its own.
    """
    await _parameters(request, ())
    await service.engine.load_model(_run_of(service, model), None)
    return {}


@router.post("/repository/models/{model}/unload", dependencies=[ADMIN], openapi_extra=LOAD)
async def unload_model(model: str, request: Request, service: ServiceOf) -> dict[str, Any]:
    """Let the run of a model go; the default one stays."""
    await _parameters(request, _UNLOADS)
    name = _run_of(service, model)
    if name not in [info.name for info in service.engine.models()]:
        raise ProtocolError(f"no model is called '{model}': see POST /v2/repository/index", status=404)
    await service.engine.unload_model(name)
    return {}


async def _parameters(request: Request, known: tuple[str, ...]) -> None:
    """Refuse parameters that nothing would come of.

    Raises:
        ProtocolError: names one.
    """
    body = await request.body()
    given = read_object(body).get("parameters") if body else None
    if not isinstance(given, dict | None):
        raise ProtocolError("parameters must be an object")
    for name in given or ():
        if name not in known:
            raise ProtocolError(
                f"unknown parameter '{name[:64]}': a model is the folder of its name, under that of --models"
            )


def _run_of(service: Service, model: str) -> str:
    """The run that a model is asked of; a name that no model has is a run's own."""
    runs = service.engine.models()
    if not runs:
        raise ProtocolError("the first model is still loading", status=503)
    if model not in [run.name for run in runs]:
        for offered in offered_models(runs):
            if offered.name == model:
                return offered.run.name
    if not _NAME.fullmatch(model):
        raise ProtocolError(f"no model is called '{model[:64]}': see POST /v2/repository/index", status=404)
    return model


async def _infer(request: Request, service: Service, statistics: Statistics, model: OfferedModel) -> Response:
    """Ask a model; counted and timed."""
    began = time.perf_counter_ns()
    try:
        asked = read_request(await request.body(), request.headers.get(HEADER_LENGTH))
        decoded = time.perf_counter_ns()
        found = await infer(service.engine, model, asked)
        answered = time.perf_counter_ns()
        response = _response(model, asked, found)
    except BaseException:
        statistics.failed(model.name, model.run.version, time.perf_counter_ns() - began)
        raise
    facts = facts_of(request)
    for answer in found.answers:
        facts.answered(answer, found.outputs[0].shape[1], None)
    waited = max((answer.queue_ms for answer in found.answers), default=0.0)
    queue = min(int(waited * 1e6), answered - decoded)
    timing = Timing(
        compute_input=decoded - began,
        queue=queue,
        compute_infer=answered - decoded - queue,
        compute_output=time.perf_counter_ns() - answered,
    )
    statistics.succeeded(model.name, found.version or model.run.version, found.n_rows, timing)
    return response


def _response(model: OfferedModel, asked: InferRequest, found: Inferred) -> Response:
    """JSON, or JSON and the bytes of outputs."""
    said = {"model_version": found.version, "id": asked.id, "parameters": found.parameters or None}
    head = {"model_name": model.name, **{name: value for name, value in said.items() if value is not None}}
    body, n_json = write_response(head, found.outputs, asked)
    if n_json is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type="application/octet-stream", headers={HEADER_LENGTH: str(n_json)})


def _ready(service: Service, model: OfferedModel) -> Response:
    """Readiness of a model: of the service, for all are loaded before it is ready."""
    ready = why_not_ready(service) is None
    return JSONResponse({"name": model.name, "ready": ready}, status_code=200 if ready else 503)
