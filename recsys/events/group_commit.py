"""One thread a process that writes: what waits is committed together, and answered after that."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from recsys.errors import RecsysError
from recsys.events.store import Appended, Event, EventStoreError

GROUP = 512
"""Most events of a commit, unless one `append` alone holds more."""


class GroupCommit:
    """Several callers' events in one commit.

    Nothing is waited for: what came during the last commit is the next one, so that a caller alone is
    answered after one commit and a crowd shares them.

    Args:
        write: stores the events of some callers in one transaction and returns what became of each
            caller's. Only the thread of this object calls it.
        end: called by that thread when it ends.
    """

    def __init__(
        self,
        write: Callable[[list[Sequence[Event]]], list[Appended]],
        end: Callable[[], None],
        name: str,
    ) -> None:
        self._write, self._end = write, end
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, events: Sequence[Event]) -> "Future[Appended]":
        """Hand events over; the future is done after their commit, and raises what `write` raised.

        Raises:
            EventStoreError: the store is closed.
        """
        answer: Future[Appended] = Future()
        # Nobody takes back what may be written already.
        answer.set_running_or_notify_cancel()
        self._put((events, answer))
        return answer

    def call(self, work: Callable[[], Any]) -> Any:
        """Run something else that writes, between two commits, and return what it returns."""
        answer: Future[Any] = Future()
        self._put((work, answer))
        return answer.result()

    def close(self) -> None:
        """Finish what waits and end the thread; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _put(self, job: "_Job") -> None:
        with self._lock:
            if self._closed:
                raise EventStoreError("the event store is closed; open it again")
            self._waiting.put(job)

    def _run(self) -> None:
        try:
            job = self._waiting.get()
            while job is not None:
                work, answer = job
                if callable(work):
                    _settle([answer], partial(_as_group, work))
                    job = self._waiting.get()
                else:
                    group, answers, job = self._gather(work, answer)
                    _settle(answers, partial(self._write, group))
                    job = job or self._waiting.get()
        finally:
            self._end()

    def _gather(
        self, first: Sequence[Event], answer: "Future[Any]"
    ) -> tuple[list[Sequence[Event]], list["Future[Any]"], "_Job | None"]:
        """What waits and fits into a commit with the first, and the job that came next and does not."""
        group, answers, size = [first], [answer], len(first)
        while size < GROUP:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._waiting.put(None)  # the end comes again, after this group
                break
            work, following = job
            if callable(work) or size + len(work) > GROUP:
                return group, answers, job
            group.append(work)
            answers.append(following)
            size += len(work)
        return group, answers, None


_Job = tuple[Sequence[Event] | Callable[[], Any], "Future[Any]"]


def _as_group(work: Callable[[], Any]) -> list[Any]:
    return [work()]


def _settle(answers: list["Future[Any]"], work: Callable[[], list[Any]]) -> None:
    """Do the work and answer everybody: the thread outlives whatever happens."""
    try:
        results: list[Any] = work()
    except RecsysError as error:
        for answer in answers:
            # One of its own for each: a traceback belongs to one caller.
            answer.set_exception(type(error)(*error.args))
    except BaseException as error:
        for answer in answers:
            answer.set_exception(error)
    else:
        for answer, result in zip(answers, results, strict=True):
            answer.set_result(result)
