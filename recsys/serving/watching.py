"""A look at the event store every second: can it be read, and is it still the one that was written to?"""

import logging

from recsys.events.store import EventStore, EventStoreError
from recsys.serving.http.service import Service

_log = logging.getLogger("recsys.serving.events")


class EventWatch:
    """Looks at the store of a worker; called by one thread at a time.

    Args:
        service: told whether events can be read.
        events: of the service.
    """

    def __init__(self, service: Service, events: EventStore) -> None:
        self._service, self._events = service, events
        self._last = 0

    def look(self) -> None:
        """Look once.

        Places that fall mean that a copy from before was put back while the service runs. They would be given
        again, to other events than those that kept answers and logs are of: places begin after the highest
        that was seen.
        """
        try:
            last = self._events.last_seq()
            if self._events.reserve(self._last):
                _log.warning(
                    "the event store went back from place %d to %d: a copy from before was put back, and "
                    "places begin after the former; users who were erased since have to be erased again",
                    self._last,
                    last,
                )
                last = self._last
        except EventStoreError as error:
            if self._service.events_readable:
                _log.warning("events cannot be read: %s", error)
            self._service.events_readable = False
            return
        self._last = max(self._last, last)
        self._service.events_readable = True
