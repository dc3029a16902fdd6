"""What is known of a user: events of the training log, then those that came in since."""

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from recsys.errors import UnknownIdError
from recsys.events.store import RawId
from recsys.serving.http.ids import model_info
from recsys.serving.http.service import Service


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """One event of a user.

    Attributes:
        item: raw id.
        time: unix seconds, where the log has any.
        type: as the sender named it; None for events of the log.
        seq: its place in the event store; None is from the log.
        id: the sender's name for it.
    """

    item: RawId
    time: int | None
    type: str | None = None
    seq: int | None = None
    id: str | None = None


async def known_events(service: Service, user: RawId, model: str | None = None) -> list[KnownEvent]:
    """Events of a user, oldest first, as a model reads them: its log's, then those that the log lacks.

    Args:
        service: whose engine and store are read.
        user: raw id in the log's kind.
        model: whose log is read; None is the default's.

    Raises:
        UnknownIdError, BusyError: as `model_info`.
        EventStoreError: the store cannot be read.
    """
    info, events = model_info(service.engine, model), service.events
    try:
        log = await service.engine.history(user, model)
    except UnknownIdError:
        log = []  # somebody who came since
    known = [KnownEvent(item, time) for item, time in log]
    if events is not None:
        mark = info.watermark
        after = mark[1] if log and mark is not None and mark[0] == events.identity else 0
        for each in await run_in_threadpool(events.tail, user, after):
            own = each.event
            known.append(KnownEvent(own.item, own.time, own.type, each.seq, own.id))
    return known
