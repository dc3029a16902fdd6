"""What a user did, for people to read: the log's events and those that came in since."""

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from recsys.errors import UnknownIdError
from recsys.events.store import RawId
from recsys.serving.http.service import Service


@dataclass(frozen=True, slots=True)
class Done:
    """One event of a user.

    Attributes:
        item: raw id.
        title: of it, where the catalog has one.
        time: unix seconds, where the log has any.
        type: as the sender named it.
        seq: its place in the event store; None is from the training log.
    """

    item: RawId
    title: str | None
    time: int | None
    type: str | None = None
    seq: int | None = None


async def read_history(service: Service, user: RawId, model: str | None = None) -> list[Done]:
    """Events of a user, oldest first; empty for somebody of whom nothing is known.

    Args:
        service: whose engine and store are read.
        user: raw id.
        model: whose log is read; None is the default's.
    """
    engine = service.engine
    try:
        log = await engine.history(user, model)
    except UnknownIdError:
        log = []  # somebody who came since
    events = service.events
    stored = [] if events is None else await run_in_threadpool(events.tail, user, engine.log_end(model))
    items = [item for item, _ in log] + [each.event.item for each in stored]
    titles = await engine.title(items, model)
    done = [Done(item, title, time) for (item, time), title in zip(log, titles, strict=False)]
    for each, title in zip(stored, titles[len(log) :], strict=True):
        done.append(Done(each.event.item, title, each.event.time, each.event.type, each.seq))
    return done
