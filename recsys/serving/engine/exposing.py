"""Answers that are kept beside the events: handed over at once, written by a thread of its own."""

import logging
import threading
import time
from collections import deque

from recsys.errors import RecsysError
from recsys.events.exposures import Exposure, ExposureStore
from recsys.serving.engine.asking import Answered, Ask
from recsys.serving.engine.observing import Observer

ROOM = 8192
"""Exposures that wait to be written; more are dropped."""
GROUP = 1024
"""Exposures of a commit, at most."""
PAUSE = 0.5
"""Seconds between two commits, so that events have the disk for themselves."""

_log = logging.getLogger("recsys.serving.exposures")


class Exposures:
    """Keeps answers without being in the way of one.

    Args:
        store: that keeps them.
        observer: told how many were kept, and how many dropped because writing failed or is behind.
    """

    def __init__(self, store: ExposureStore, observer: Observer) -> None:
        self._store, self._observer = store, observer
        self._waiting: deque[Exposure] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recsys-exposures", daemon=True)
        self._thread.start()

    def add(self, ask: Ask, answered: Answered, *, shadow: bool = False) -> None:
        """Hand an answer over; one without a request's id is not kept, as nothing could name it."""
        if ask.request_id is None or not answered.items:
            return
        if len(self._waiting) >= ROOM:
            self._observer.exposed(0, 1)
            return
        self._waiting.append(
            Exposure(
                request_id=ask.request_id,
                user=ask.user,
                model=answered.model,
                version=answered.version,
                items=tuple(item.id for item in answered.items),
                time=int(time.time()),
                shadow=shadow,
            )
        )

    def end(self, seconds: float) -> None:
        """Write what waits and end the thread; what is not written after `seconds` is lost."""
        self._ended.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._ended.wait(PAUSE):
            self._write()
        self._write()

    def _write(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
            try:
                self._store.expose(group)
            except RecsysError as error:
                self._observer.exposed(0, len(group))
                _log.warning("exposures were dropped: %s", error)
                return
            except Exception:
                self._observer.exposed(0, len(group))
                _log.exception("exposures were dropped")
                return
            self._observer.exposed(len(group), 0)


def exposures_beside(events: object, observer: Observer) -> Exposures | None:
    """Where answers are kept, if a store of events has room for them."""
    return Exposures(events, observer) if isinstance(events, ExposureStore) else None
