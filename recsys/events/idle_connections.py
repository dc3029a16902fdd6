"""Connections for reading, each used by one thread at a time and kept for the next one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from recsys.events.store import EventStoreError

C = TypeVar("C")


class IdleConnections(Generic[C]):
    """Connections that nobody uses now; there are as many as threads have read at the same time.

    Args:
        connect: opens one.
        close: closes one, whatever became of it.
    """

    def __init__(self, connect: Callable[[], C], close: Callable[[C], Any]) -> None:
        self._connect, self._close_one = connect, close
        self._idle: list[C] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def taken(self) -> Iterator[C]:
        """Have one for a block; one in whose block something went wrong is not used again.

        Raises:
            EventStoreError: `close` was called, or what `connect` raises.
        """
        with self._lock:
            if self._closed:
                raise EventStoreError("the event store is closed; open it again")
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        except BaseException:
            self._close_one(connection)
            raise
        if not self._kept(connection):
            self._close_one(connection)

    def drop(self) -> None:
        """Close those that are idle: the server behind them has gone."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            self._close_one(connection)

    def close(self) -> None:
        """Close all, now or when their block ends; none is opened any more."""
        with self._lock:
            self._closed = True
        self.drop()

    def _kept(self, connection: C) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._idle.append(connection)
            return True
