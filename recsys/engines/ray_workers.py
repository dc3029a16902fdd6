"""Numbered pieces of work given one by one to actors of a Ray cluster, and again when an actor is lost.

Ray Data would carry the numbers, too; but it restarts an actor and repeats its task without end where the
task ends the process, and what a lost machine had in hand waits until all else is done. Here a number is
given to an actor that is up, belongs to nobody once that is lost, and may end a few of them at most.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recsys.errors import RunError

MOST_LOST = 5
"""Workers that a number may lose, or that may be lost before one is up."""


def each_by_workers(
    ray: Any,
    numbers: Sequence[int],
    worker: type[Any],
    arguments: Mapping[str, Any],
    *,
    workers: int,
    **resources: float,
) -> Iterator[tuple[int, str]]:
    """Have a worker do each number; yields a number and the worker's word on it as it is done, in any order.

    Args:
        ray: the module, connected.
        numbers: what to do; each is done once at least: twice where a worker is lost before it says so.
        worker: class of the actors; `open()` is called first and returns what is wrong, or an empty text,
            `work(number)` likewise for a number.
        arguments: of its constructor; small, for every actor that takes a lost one's place gets them.
        workers: actors at a time.
        resources: of each, as `num_cpus=1`.

    Raises:
        RunError: a worker could not open, or a number lost `MOST_LOST` workers.
    """
    actors = ray.remote(worker).options(max_restarts=0, scheduling_strategy="SPREAD", **resources)
    waiting, left, lost = deque(numbers), set(numbers), Counter[int | None]()
    busy: dict[Any, tuple[Any, int | None]] = {}  # call under way: the actor, and its number or None

    def begin() -> None:
        actor = actors.remote(**arguments)
        busy[actor.open.remote()] = actor, None

    try:
        for _ in range(min(workers, len(waiting))):
            begin()
        while left:
            (ended,), _ = ray.wait(list(busy), num_returns=1)
            actor, number = busy.pop(ended)
            try:
                error = ray.get(ended)
            except ray.exceptions.RayTaskError:
                raise  # a mistake of ours: its traceback is wanted
            except ray.exceptions.RayError as failure:
                ray.kill(actor)
                lost[number] += 1
                if lost[number] == MOST_LOST:
                    raise RunError(_told(number, failure)) from None
                if number is not None:
                    waiting.appendleft(number)
                if waiting:
                    begin()
                continue
            if number is not None:
                left.remove(number)
                yield number, error
            elif error:
                raise RunError(error)
            lost[None] = 0
            if waiting:
                following = waiting.popleft()
                busy[actor.work.remote(following)] = actor, following
            else:
                ray.kill(actor)
    finally:
        for actor, _ in busy.values():
            ray.kill(actor)


def _told(number: int | None, failure: Exception) -> str:
    reason = str(failure).strip().splitlines()
    what = "no worker came up" if number is None else f"part {number} ended its worker"
    return f"{what}, {MOST_LOST} times ({reason[-1] if reason else type(failure).__name__})"
