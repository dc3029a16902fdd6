"""What every route can reach: `service_of(request)`."""

from dataclasses import dataclass, field

from fastapi import Request

from recsys.events.store import EventStore
from recsys.serving.engine.asking import Engine
from recsys.serving.http.metrics import Metrics
from recsys.serving.http.traffic import Traffic
from recsys.serving.settings import ServeSettings


@dataclass(slots=True, eq=False)
class Service:
    """A worker's engine, store and settings; put into `app.state.service` by `create_app`.

    Attributes:
        settings: of the command line.
        engine: of the models.
        events: store of events; None keeps none.
        started: whether all workers of the service have been ready: they share the port, and a balancer
            cannot tell them apart.
        draining: whether the service is ending, and takes no new requests from a balancer.
        events_readable: whether the last look at the store succeeded.
        events_writable: whether the last write of events succeeded.
        metrics: of the worker; also the engine's observer.
        traffic: of its last minutes, for the page.
    """

    settings: ServeSettings
    engine: Engine
    events: EventStore | None
    started: bool = True
    draining: bool = False
    events_readable: bool = True
    events_writable: bool = True
    metrics: Metrics = field(default_factory=Metrics)
    traffic: Traffic = field(default_factory=Traffic)


async def service_of(request: Request) -> Service:
    """The service that a request came to, as a FastAPI dependency."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
