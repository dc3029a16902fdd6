"""POST /v1/events."""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from recsys.events.checking import fault_of
from recsys.events.event_columns import MOST_COLUMNS
from recsys.events.store import Appended, Event
from recsys.serving.engine.asking import ModelInfo
from recsys.serving.http.auth import requires
from recsys.serving.http.ids import check_type, model_info
from recsys.serving.http.problems import FieldError, said_of_fields
from recsys.serving.http.responses import json_response, problems
from recsys.serving.http.schemas import Id, Seconds, Strict, Text, Value
from recsys.serving.http.service import Service, service_of
from recsys.serving.http.storing import written

router = APIRouter(tags=["events"])

MOST_EVENTS = 1000
AHEAD = 300
"""Seconds that an event's time may be ahead of this machine's clock."""


class EventBody(Strict):
    """One interaction."""

    user: Id
    item: Id
    time: Seconds | None = None
    id: Text | None = None
    type: Text | None = None
    request_id: Text | None = None
    columns: Annotated[dict[Text, Value], Field(max_length=MOST_COLUMNS)] | None = None

    def event(self, now: int) -> Event:
        """As a store takes it; the time is now where none was said."""
        when = now if self.time is None else self.time
        return Event(self.user, self.item, when, self.id, self.type, self.request_id, self.columns or None)


_VALIDATE = EventBody.__pydantic_validator__.validate_python


class EventsBody(Strict):
    """Events, each of which is stored or rejected by itself."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"events": [{"user": 42, "item": 50, "id": "c0ffee-1", "type": "view"}]},
                {"events": [{"user": 42, "item": 50, "time": 893286638}, {"user": 7, "item": 181}]},
                {"events": [{"user": 42, "item": 50, "columns": {"device": "phone", "price": 9.5}}]},
            ]
        },
    )

    events: list[dict[str, Any]] = Field(
        max_length=MOST_EVENTS,
        description=(
            "Objects of `user` and `item` (ids as the log has them) and, if wanted: `time` (unix seconds, now"
            " if left out), `id` (your name for the event: one that was stored before is a duplicate, so that"
            " a request can be sent again), `type`, `request_id` of the answer that it came of, and"
            " `columns`, an object of what else came with it: models read the event columns that they were"
            " trained with, and all are exported."
        ),
    )


class Rejected(BaseModel):
    """An event that was not stored."""

    index: int
    detail: str


class EventsAnswer(BaseModel):
    """What became of the events, after those that were stored are durable."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "accepted": 1,
                    "duplicates": 0,
                    "rejected": [{"index": 1, "detail": "time: is 3600 s ahead of this machine's clock"}],
                    "last_seq": 7,
                }
            ]
        }
    )

    accepted: int
    duplicates: int
    rejected: list[Rejected]
    last_seq: int = Field(description="An answer whose `last_seq` is not lower has read these events.")


@router.post(
    "/v1/events",
    response_model=EventsAnswer,
    responses=problems(400, 404, 413, 415, 422, 507),
    dependencies=[Depends(requires("write"))],
)
async def events(
    body: EventsBody, request: Request, service: Annotated[Service, Depends(service_of)]
) -> Response:
    """Store events; the answer is sent after they are durable, and every later answer has read them."""
    store, info = written(service), model_info(service.engine)
    good, rejected, now = [], [], int(time.time())
    for index, each in enumerate(body.events):
        read = _read(each, info, now)
        if isinstance(read, Event):
            good.append(read)
        else:
            rejected.append({"index": index, "detail": read})
    found, seconds = Appended(0, 0, 0), None
    if good:
        began = time.perf_counter()
        found = await asyncio.wrap_future(store.submit(good))
        seconds = time.perf_counter() - began
        service.events_writable = True
    service.metrics.events(found.accepted, found.duplicates, len(rejected), seconds)
    last = found.last_seq or await run_in_threadpool(store.last_seq)
    return json_response(
        {"accepted": found.accepted, "duplicates": found.duplicates, "rejected": rejected, "last_seq": last}
    )


def _read(given: dict[str, Any], info: ModelInfo, now: int) -> Event | str:
    """An event, or why it is none that can be stored."""
    try:
        event: Event = _VALIDATE(given).event(now)
        check_type("user", [event.user], info.user_ids_are_int)
        check_type("item", [event.item], info.ids_are_int)
    except ValidationError as error:
        first = said_of_fields(error.errors(include_url=False, include_context=False))[0]
        return f"{first['field']}: {first['detail']}"
    except FieldError as error:
        return str(error)
    if event.time > now + AHEAD:
        return f"time: is {event.time - now} s ahead of this machine's clock"
    return fault_of(event) or event
