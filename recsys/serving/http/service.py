"""What every route can reach: `service_of(request)`."""

from dataclasses import dataclass

from fastapi import Request

from recsys.events.store import EventStore
from recsys.serving.engine.asking import Engine
from recsys.serving.settings import ServeSettings


@dataclass(slots=True, eq=False)
class Service:
    """A worker's engine, store and settings; put into `app.state.service` by `create_app`."""

    settings: ServeSettings
    engine: Engine
    events: EventStore | None


def service_of(request: Request) -> Service:
    """The service that a request came to, as a FastAPI dependency."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
