"""One compute thread and a bounded queue before it: what waits is computed together, without delay.

An artificial delay would make every request slower to make some batches larger; under load a queue forms by
itself, and the thread takes all of it that fits.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from recsys.serving.engine.asking import BusyError, DeadlineError
from recsys.serving.engine.observing import Observer, Silent

Job = TypeVar("Job")
Result = TypeVar("Result")

_BEAT = 0.5
"""Most seconds between two beats of an idle thread."""
_AT_ONCE = 4
"""Results that a loop is handed before it looks for what else has come in.

Sending a whole batch's answers in a row would keep those who are refused meanwhile waiting for all of them.
"""


class Batched(NamedTuple, Generic[Result]):
    """What became of a job."""

    result: Result
    batch: int
    """Jobs that were computed with it."""
    waited: float
    """Seconds in the queue."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Job, Result]):
    job: Job
    weight: int
    since: float
    deadline: float
    future: "asyncio.Future[Batched[Result]]"


_Outcome = tuple["asyncio.Future[Batched[Result]]", "Batched[Result] | Exception"]


class Batcher(Generic[Job, Result]):
    """Computes jobs on one thread of its own, as they come, together if they wait together.

    A batch that raises is computed again job by job, so that one job's mistake is its own. The thread goes on
    whatever is raised. Jobs whose caller has gone, or whose deadline has passed, are not computed.

    Args:
        compute: results of jobs, each in its place; an exception in a place is raised to that job's caller.
        queue: most jobs that wait; a call that brings several is taken whole if there is room for its first.
        batch: most jobs of a batch.
        weight: most weight of a batch of several.
        observer: told of batches, waits and refusals.
        name: of the thread.
    """

    def __init__(
        self,
        compute: Callable[[list[Job]], Sequence[Result | Exception]],
        *,
        queue: int = 256,
        batch: int = 64,
        weight: int = 8192,
        observer: Observer | None = None,
        name: str = "recsys-compute",
    ) -> None:
        self._compute, self._queue, self._batch, self._weight = compute, queue, batch, weight
        self._observer: Observer = Silent() if observer is None else observer
        self._waiting: deque[_Waiting[Job, Result]] = deque()
        self._spare: deque[_Waiting[Job, Result]] = deque()
        self._wake = threading.Condition()
        self._ending = False
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """Most jobs in the queue."""
        return self._queue

    def heartbeat_age(self) -> float:
        """Seconds since the thread was last between two batches; infinite once it has ended."""
        return time.monotonic() - self._beat if self._thread.is_alive() else float("inf")

    async def ask(self, job: Job, *, seconds: float, weight: int = 1) -> Batched[Result]:
        """Compute a job.

        Args:
            job: handed to `compute`.
            seconds: until it is given up.
            weight: of it; see the class.

        Raises:
            BusyError: the queue is full, or the thread is ending.
            DeadlineError: the result was not there in time.
        """
        (found,) = await self.ask_many([job], seconds=seconds, weights=[weight])
        if isinstance(found, Exception):
            raise found
        return found

    async def ask_many(
        self, jobs: Sequence[Job], *, seconds: float, weights: Sequence[int]
    ) -> list[Batched[Result] | Exception]:
        """Compute several, each with its own end; arguments as of `ask`.

        Raises:
            BusyError: none of them was taken.
        """
        if not jobs:
            return []
        now, loop = time.monotonic(), asyncio.get_running_loop()
        entered = [
            _Waiting[Job, Result](job, weight, now, now + seconds, loop.create_future())
            for job, weight in zip(jobs, weights, strict=True)
        ]
        with self._wake:
            if self._ending:
                reason = "ending"
            elif len(self._waiting) >= self._queue:
                reason = "queue_full"
            else:
                reason = ""
                self._waiting.extend(entered)
                self._wake.notify()
        if reason:
            self._observer.rejected(reason)
            raise BusyError(
                "the service is ending: ask another one"
                if self._ending
                else f"{self._queue} requests are waiting: ask again in a second"
            )
        futures = [own.future for own in entered]
        end = loop.call_later(seconds, _give_up, futures, seconds)
        try:
            return [await self._outcome(future) for future in futures]
        except asyncio.CancelledError:
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    # Read, or the loop would complain that nobody did.
                    future.exception()
            raise
        finally:
            end.cancel()

    def spare(self, job: Job, *, seconds: float, weight: int = 1) -> "asyncio.Future[Batched[Result]] | None":
        """Compute a job when nothing else waits; None if the queue is more than half full.

        The future raises a DeadlineError if the queue fills, or time is up, before its turn. It has to be
        awaited.
        """
        now, loop = time.monotonic(), asyncio.get_running_loop()
        own = _Waiting[Job, Result](job, weight, now, now + seconds, loop.create_future())
        with self._wake:
            if self._ending or len(self._waiting) + len(self._spare) > self._queue // 2:
                return None
            self._spare.append(own)
            self._wake.notify()
        return own.future

    def end(self, seconds: float) -> None:
        """Take no more, compute what waits, and end the thread; what is left then gets a BusyError.

        Args:
            seconds: until it is no longer waited for.
        """
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join(seconds)
        with self._wake:
            left = [*self._waiting, *self._spare]
            self._waiting.clear()
            self._spare.clear()
        _resolve([(own.future, BusyError("the service has ended: ask another one")) for own in left])

    async def _outcome(self, future: "asyncio.Future[Batched[Result]]") -> Batched[Result] | Exception:
        try:
            return await future
        except DeadlineError as error:
            self._observer.late()
            return error
        except Exception as error:
            return error

    def _run(self) -> None:
        while True:
            taken: list[_Waiting[Job, Result]] | None = []
            try:
                taken = self._take()
                if taken is None:
                    return
                self._answer(taken)
            except BaseException as error:
                # Whatever it is, the next request is answered.
                broken = RuntimeError(f"the compute thread met {type(error).__name__}: {error}")
                _resolve([(own.future, broken) for own in taken or ()])
                with contextlib.suppress(BaseException):
                    self._observer.failed(error)

    def _take(self) -> list[_Waiting[Job, Result]] | None:
        """Jobs to compute now; none after a while without; None at the end."""
        gone: list[_Waiting[Job, Result]] = []
        with self._wake:
            self._beat = time.monotonic()
            if not self._waiting and not self._spare:
                if self._ending:
                    return None
                self._wake.wait(_BEAT)
            if len(self._waiting) > self._queue // 2:
                gone.extend(self._spare)
                self._spare.clear()
            taken = self._fill(self._waiting, gone) or self._fill(self._spare, gone)
        _resolve([(own.future, _late(time.monotonic() - own.since)) for own in gone])
        return taken

    def _fill(
        self, queue: deque[_Waiting[Job, Result]], gone: list[_Waiting[Job, Result]]
    ) -> list[_Waiting[Job, Result]]:
        """The first of a queue, as many as make a batch; those that nobody waits for any more are `gone`."""
        taken: list[_Waiting[Job, Result]] = []
        weight, now = 0, time.monotonic()
        while queue and len(taken) < self._batch:
            first = queue[0]
            if first.future.done() or first.deadline < now:
                gone.append(queue.popleft())
                continue
            if taken and weight + first.weight > self._weight:
                break
            taken.append(queue.popleft())
            weight += first.weight
        return taken

    def _answer(self, taken: list[_Waiting[Job, Result]]) -> None:
        if not taken:
            return
        start = time.monotonic()
        self._observer.batch(len(taken), sum(own.weight for own in taken))
        for own in taken:
            self._observer.waited(start - own.since)
        found = self._computed([own.job for own in taken])
        if isinstance(found, Exception) and len(taken) > 1:
            for own in taken:
                self._beat = time.monotonic()
                if not own.future.done() and own.deadline > self._beat:
                    (alone,) = _each(self._computed([own.job]), 1)
                    _resolve([(own.future, _done(alone, 1, start - own.since))])
            return
        results = _each(found, len(taken))
        _resolve(
            [
                (own.future, _done(result, len(taken), start - own.since))
                for own, result in zip(taken, results, strict=True)
            ]
        )

    def _computed(self, jobs: list[Job]) -> "Sequence[Result | Exception] | Exception":
        """Results of jobs, or what computing them raised."""
        try:
            results = self._compute(jobs)
            if len(results) != len(jobs):
                raise RuntimeError(f"{len(jobs)} jobs have {len(results)} results")
        except BaseException as error:
            self._observer.failed(error)
            return _ordinary(error)
        return results


def _each(found: "Sequence[Result | Exception] | Exception", count: int) -> "Sequence[Result | Exception]":
    return [found] * count if isinstance(found, Exception) else found


def _done(result: "Result | Exception", batch: int, waited: float) -> "Batched[Result] | Exception":
    return _ordinary(result) if isinstance(result, Exception) else Batched(result, batch, waited)


def _give_up(futures: "Sequence[asyncio.Future[Batched[Result]]]", seconds: float) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(_late(seconds))


def _late(seconds: float) -> DeadlineError:
    return DeadlineError(f"no answer within {seconds:.3g} seconds: ask again later, or for less")


def _ordinary(error: BaseException) -> Exception:
    """An exception that a future can carry: neither the end of a process nor that of an iterator."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | asyncio.CancelledError):
        return error
    return RuntimeError(f"{type(error).__name__} was raised while computing: {error}")


def _resolve(outcomes: "Sequence[_Outcome[Result]]") -> None:
    """Hand results to the event loops of their callers: each loop is woken once, and takes some at a time."""
    loops: dict[asyncio.AbstractEventLoop, list[_Outcome[Result]]] = {}
    for outcome in outcomes:
        loops.setdefault(outcome[0].get_loop(), []).append(outcome)
    for loop, own in loops.items():
        try:
            loop.call_soon_threadsafe(_set, own)
        except RuntimeError:
            # A loop that was closed has nobody who waits.
            continue


def _set(outcomes: "Sequence[_Outcome[Result]]") -> None:
    for future, outcome in outcomes[:_AT_ONCE]:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    if len(outcomes) > _AT_ONCE:
        asyncio.get_running_loop().call_soon(_set, outcomes[_AT_ONCE:])
