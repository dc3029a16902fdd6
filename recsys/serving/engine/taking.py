"""From an ask to what the compute thread is handed: which model answers, and what is known of the user."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from recsys.events.store import EventStore, QuickStore
from recsys.serving.engine.asking import Ask
from recsys.serving.engine.assignment import Assignment
from recsys.serving.engine.computing import AskJob
from recsys.serving.engine.tails import NOTHING, read_position, read_tail
from recsys.serving.ids import as_logged


class Taking:
    """Takes asks up, on the event loop.

    Args:
        events: of users; None for a service without.
        aside: awaits a call that is made on another thread.
    """

    def __init__(
        self, events: EventStore | None, aside: Callable[[Callable[[], Any]], Awaitable[Any]]
    ) -> None:
        self._events, self._aside = events, aside
        self._quick = events if isinstance(events, QuickStore) else None
        self._waits = getattr(events, "reads_wait", False)

    async def job(self, assignment: Assignment, ask: Ask) -> AskJob:
        """A job of an ask.

        Raises:
            UnknownIdError: `ask.model` is not in service.
            EventStoreError: the store cannot be read.
        """
        if ask.user is not None:
            # Kinds of ids are those of every model in service.
            user = as_logged(ask.user, assignment.places[0].served.names.users.is_int)
            ask = ask if user is ask.user else replace(ask, user=user)
        if ask.model is not None:
            served = assignment.named(ask.model).served
        else:
            served = assignment.chosen(ask.request_id if ask.user is None else ask.user)
        who, events = ask.user, self._events
        if who is None or events is None:
            return AskJob(served, ask, NOTHING, NOTHING.position)
        if self._waits:
            tail = await self._aside(lambda: read_tail(events, who, served.watermark_for(who)))
            return AskJob(served, ask, tail, tail.position)
        position = None
        if self._quick is not None:
            position = read_position(self._quick, who, served.watermark_for(who))
        # Events that came in are left to the compute thread: there may be many.
        return AskJob(served, ask, NOTHING if position == NOTHING.position else None, position)
