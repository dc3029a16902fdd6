"""What a user did, for people to read: the log's events and those that came in since."""

from dataclasses import dataclass

from recsys.events.store import RawId
from recsys.serving.http.histories import known_events
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
    known = await known_events(service, user, model)
    titles = await service.engine.title([own.item for own in known], model)
    return [
        Done(own.item, title, own.time, own.type, own.seq) for own, title in zip(known, titles, strict=True)
    ]
