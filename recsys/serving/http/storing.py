"""What routes that write events share."""

from fastapi import HTTPException

from recsys.events.store import EventStore
from recsys.serving.http.service import Service


def written(service: Service) -> EventStore:
    """The store that events are written to.

    Raises:
        HTTPException: 404, the service keeps no events.
    """
    if service.events is None:
        raise HTTPException(404, "this service keeps no events; serve with --events FILE")
    return service.events
