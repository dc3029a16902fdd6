"""Connections to a server of vectors, each used by one thread at a time, kept, and left behind by a fork."""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

C = TypeVar("C")
T = TypeVar("T")

_INHERITED: list[Any] = []
"""Connections of a parent process. They are kept to the end: closing them here would close the parent's."""


class Connections(Generic[C]):
    """As many connections as threads have searched at the same time.

    Args:
        connect: opens one.
        close: closes one, whatever became of it.
        lost: what a connection raises whose server has gone, or has gone and come back.
        mends: whether such a connection is good for the next try; otherwise it is closed.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        close: Callable[[C], Any],
        lost: type[Exception],
        *,
        mends: bool = False,
    ) -> None:
        self._connect, self._close, self._lost, self._mends = connect, close, lost, mends
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[C] = []
        weakref.finalize(self, _close_all, self._idle, close, self._owner)

    def call(self, work: Callable[[C], T]) -> T:
        """Do something with a connection; once more if a kept one turns out to be lost.

        Raises:
            Exception: what `connect` or `work` raises.
        """
        self._begin_anew_in_a_fork()
        connection = self._kept()
        if connection is not None:
            try:
                return self._worked(connection, work)
            except self._lost:
                if not self._mends:
                    self._drop()
                connection = self._kept()
        return self._worked(self._connect() if connection is None else connection, work)

    def _kept(self) -> C | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _worked(self, connection: C, work: Callable[[C], T]) -> T:
        good = False
        try:
            result = work(connection)
            good = True
        except self._lost:
            good = self._mends
            raise
        finally:
            if good:
                with self._lock:
                    self._idle.append(connection)
            else:
                self._close(connection)
        return result

    def _drop(self) -> None:
        """Close those that nobody uses: the server behind them has gone."""
        with self._lock:
            idle = self._idle[:]
            self._idle.clear()
        for connection in idle:
            self._close(connection)

    def _begin_anew_in_a_fork(self) -> None:
        if self._owner != os.getpid():
            _INHERITED.extend(self._idle)
            self._owner, self._lock, self._idle = os.getpid(), threading.Lock(), []
            weakref.finalize(self, _close_all, self._idle, self._close, self._owner)


def _close_all(idle: list[C], close: Callable[[C], Any], owner: int) -> None:
    if owner != os.getpid():
        _INHERITED.extend(idle)
        return
    for connection in idle:
        close(connection)
