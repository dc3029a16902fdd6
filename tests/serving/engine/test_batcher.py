"""The compute thread: batches of what waits, nobody's mistake is another's, and nothing ends it."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from recsys.serving.engine.asking import BusyError, DeadlineError
from recsys.serving.engine.batcher import Batched, Batcher
from recsys.serving.engine.observing import Silent


class Told(Silent):
    """What an observer was told."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.reasons: list[str] = []
        self.errors: list[BaseException] = []
        self.times_late = 0

    def batch(self, requests: int, events: int) -> None:
        self.batches.append((requests, events))

    def rejected(self, reason: str) -> None:
        self.reasons.append(reason)

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)

    def late(self) -> None:
        self.times_late += 1


class Doubling:
    """Doubles numbers once the gate is open; what is no number is raised, and kept is what was computed."""

    def __init__(self, **settings: Any) -> None:
        self.gate, self.entered, self.seen = threading.Event(), threading.Event(), list[list[Any]]()
        self.told = Told()
        self.batcher: Batcher[Any, int] = Batcher(self.compute, observer=self.told, **settings)

    def compute(self, jobs: list[Any]) -> list[int | Exception]:
        self.seen.append(list(jobs))
        self.entered.set()
        assert self.gate.wait(20)
        for job in jobs:
            if isinstance(job, BaseException):
                raise job
        return [ValueError("odd") if job % 2 else job * 2 for job in jobs]

    async def held(self) -> "asyncio.Task[Batched[int]]":
        """A job that holds the thread until the gate opens."""
        task = asyncio.create_task(self.batcher.ask(0, seconds=20))
        await asyncio.to_thread(self.entered.wait, 20)
        return task

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return asyncio.run(asyncio.wait_for(coroutine, 30))
        finally:
            self.gate.set()
            self.batcher.end(20)


@pytest.fixture
def doubling() -> Iterator[Doubling]:
    made = Doubling()
    yield made
    made.gate.set()
    made.batcher.end(20)


async def _waiting(batcher: Batcher[Any, int], count: int) -> None:
    while batcher.waiting < count:
        await asyncio.sleep(0.001)


def test_what_waits_is_one_batch_and_each_gets_its_own(doubling: Doubling) -> None:
    async def ask() -> list[Batched[int]]:
        first = await doubling.held()
        others = [asyncio.create_task(doubling.batcher.ask(2 * n, seconds=20)) for n in range(1, 6)]
        await _waiting(doubling.batcher, 5)
        doubling.gate.set()
        return await asyncio.gather(first, *others)

    found = doubling.run(ask())
    assert [own.result for own in found] == [0, 4, 8, 12, 16, 20]
    assert [own.batch for own in found] == [1, 5, 5, 5, 5, 5]
    assert all(own.waited >= 0 for own in found)
    assert doubling.seen == [[0], [2, 4, 6, 8, 10]]


@pytest.mark.parametrize(
    ("settings", "weights", "batches"),
    [
        ({"batch": 3}, [1] * 7, [3, 3, 1]),
        ({"weight": 10}, [4, 4, 4, 30, 1, 1], [2, 1, 1, 2]),
        ({"weight": 10}, [10, 1], [1, 1]),
    ],
)
def test_batches_end_at_their_bounds(
    settings: dict[str, int], weights: list[int], batches: list[int]
) -> None:
    doubling = Doubling(**settings)

    async def ask() -> None:
        first = await doubling.held()
        asked = doubling.batcher.ask_many([0] * len(weights), seconds=20, weights=weights)
        others = asyncio.create_task(asked)
        await _waiting(doubling.batcher, len(weights))
        doubling.gate.set()
        await asyncio.gather(first, others)

    doubling.run(ask())
    assert [requests for requests, _ in doubling.told.batches] == [1, *batches]
    assert sum(events for _, events in doubling.told.batches) == 1 + sum(weights)


@pytest.mark.parametrize(
    "poison", [ValueError("poison"), MemoryError(), SystemExit(1), KeyboardInterrupt(), StopIteration()]
)
def test_a_poisoned_job_of_64_hurts_itself_alone(doubling: Doubling, poison: BaseException) -> None:
    async def ask() -> list[Batched[int] | Exception]:
        first = await doubling.held()
        jobs = [2 * n if n != 17 else poison for n in range(64)]
        others = asyncio.create_task(doubling.batcher.ask_many(jobs, seconds=20, weights=[1] * 64))
        await _waiting(doubling.batcher, 64)
        doubling.gate.set()
        await first
        return await others

    found = doubling.run(ask())
    failed = found.pop(17)
    if isinstance(poison, ValueError | MemoryError):
        assert failed is poison
    else:
        assert isinstance(failed, RuntimeError)
        assert type(poison).__name__ in str(failed)
    places = [n for n in range(64) if n != 17]
    assert [own.result for own in found] == [4 * n for n in places]
    assert poison in doubling.told.errors


def test_a_mistake_in_its_place_is_raised_and_costs_no_second_pass(doubling: Doubling) -> None:
    doubling.gate.set()
    with pytest.raises(ValueError, match="odd"):
        doubling.run(doubling.batcher.ask(3, seconds=20))
    assert doubling.seen == [[3]]


def test_too_few_results_are_nobodys_answer() -> None:
    batcher: Batcher[int, int] = Batcher(lambda jobs: [])
    try:
        with pytest.raises(RuntimeError, match="1 jobs have 0 results"):
            asyncio.run(batcher.ask(1, seconds=20))
    finally:
        batcher.end(20)


def test_a_full_queue_refuses_at_once_and_takes_again_later() -> None:
    doubling = Doubling(queue=2)

    async def ask() -> list[int]:
        first = await doubling.held()
        waits = [asyncio.create_task(doubling.batcher.ask(n, seconds=20)) for n in (2, 4)]
        await _waiting(doubling.batcher, 2)
        with pytest.raises(BusyError, match="2 requests are waiting"):
            await doubling.batcher.ask(6, seconds=20)
        assert not first.done()
        doubling.gate.set()
        done = await asyncio.gather(first, *waits)
        return [own.result for own in [*done, await doubling.batcher.ask(8, seconds=20)]]

    assert doubling.run(ask()) == [0, 4, 8, 16]
    assert doubling.told.reasons == ["queue_full"]


def test_a_group_is_taken_whole_where_its_first_finds_room() -> None:
    doubling = Doubling(queue=2)

    async def ask() -> list[Batched[int] | Exception]:
        first = await doubling.held()
        group = asyncio.create_task(doubling.batcher.ask_many([2] * 9, seconds=20, weights=[1] * 9))
        await _waiting(doubling.batcher, 9)
        with pytest.raises(BusyError):
            await doubling.batcher.ask_many([2], seconds=20, weights=[1])
        doubling.gate.set()
        await first
        return await group

    assert [own.result for own in doubling.run(ask())] == [4] * 9


def test_what_is_late_is_said_so_and_not_computed(doubling: Doubling) -> None:
    async def ask() -> None:
        first = await doubling.held()
        with pytest.raises(DeadlineError, match=r"within 0\.02 seconds"):
            await doubling.batcher.ask(2, seconds=0.02)
        doubling.gate.set()
        await first
        await doubling.batcher.ask(4, seconds=20)

    doubling.run(ask())
    assert doubling.seen == [[0], [4]]
    assert doubling.told.times_late == 1


def test_a_caller_that_left_is_not_computed(doubling: Doubling) -> None:
    async def ask() -> None:
        first = await doubling.held()
        left = asyncio.create_task(doubling.batcher.ask(2, seconds=20))
        stays = asyncio.create_task(doubling.batcher.ask(4, seconds=20))
        await _waiting(doubling.batcher, 2)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        doubling.gate.set()
        await asyncio.gather(first, stays)

    doubling.run(ask())
    assert doubling.seen == [[0], [4]]


def test_spare_jobs_come_last_and_go_first() -> None:
    doubling = Doubling(queue=4)
    batcher = doubling.batcher

    async def ask() -> None:
        first = await doubling.held()
        spares = [batcher.spare(job, seconds=20) for job in (100, 102, 104, 106)]
        assert [own is None for own in spares] == [False, False, False, True]
        waits = [asyncio.create_task(batcher.ask(2, seconds=20)) for _ in range(2)]
        await _waiting(batcher, 2)
        doubling.gate.set()
        await asyncio.gather(first, *waits)
        assert [(await own).result for own in spares if own is not None] == [200, 204, 208]

    doubling.run(ask())
    assert doubling.seen == [[0], [2, 2], [100, 102, 104]]


def test_spare_jobs_are_dropped_when_the_queue_fills() -> None:
    doubling = Doubling(queue=4)
    batcher = doubling.batcher

    async def ask() -> None:
        first = await doubling.held()
        spare = batcher.spare(100, seconds=20)
        assert spare is not None
        waits = [asyncio.create_task(batcher.ask(2, seconds=20)) for _ in range(3)]
        await _waiting(batcher, 3)
        doubling.gate.set()
        await asyncio.gather(first, *waits)
        with pytest.raises(DeadlineError):
            await spare

    doubling.run(ask())
    assert doubling.seen == [[0], [2, 2, 2]]
    assert doubling.told.times_late == 0


def test_an_observer_that_raises_ends_nothing() -> None:
    class Raising(Told):
        def batch(self, requests: int, events: int) -> None:
            raise OSError("no room for metrics")

        def failed(self, error: BaseException) -> None:
            raise OSError("no room for metrics")

    batcher: Batcher[int, int] = Batcher(lambda jobs: jobs, observer=Raising())
    try:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="no room for metrics"):
                asyncio.run(batcher.ask(1, seconds=20))
        assert batcher.heartbeat_age() < 20
    finally:
        batcher.end(20)


def test_a_loop_that_closed_takes_nothing_with_it() -> None:
    gate = threading.Event()
    computed = []

    def compute(jobs: list[int]) -> list[int]:
        computed.extend(jobs)
        assert gate.wait(20)
        return jobs

    batcher: Batcher[int, int] = Batcher(compute)
    try:
        with pytest.raises(DeadlineError):
            asyncio.run(batcher.ask(1, seconds=0.01))
        gate.set()
        assert asyncio.run(batcher.ask(2, seconds=20)).result == 2
        assert computed == [1, 2]
    finally:
        gate.set()
        batcher.end(20)


def test_the_heartbeat_goes_on_when_idle_and_stops_with_the_thread() -> None:
    doubling = Doubling()

    async def ask() -> None:
        first = await doubling.held()
        before = doubling.batcher.heartbeat_age()
        await asyncio.sleep(0.05)
        assert doubling.batcher.heartbeat_age() >= before + 0.04
        doubling.gate.set()
        await first
        old = doubling.batcher._beat
        while doubling.batcher._beat == old:
            await asyncio.sleep(0.01)

    doubling.run(ask())
    assert doubling.batcher.heartbeat_age() == float("inf")


def test_the_end_computes_what_waits_and_refuses_what_comes(doubling: Doubling) -> None:
    async def ask() -> list[Any]:
        first = await doubling.held()
        waits = asyncio.create_task(doubling.batcher.ask(2, seconds=20))
        await _waiting(doubling.batcher, 1)
        ends = asyncio.create_task(asyncio.to_thread(doubling.batcher.end, 20))
        while not doubling.batcher._ending:
            await asyncio.sleep(0.001)
        with pytest.raises(BusyError, match="ending"):
            await doubling.batcher.ask(4, seconds=20)
        doubling.gate.set()
        await ends
        return [(await own).result for own in (first, waits)]

    assert doubling.run(ask()) == [0, 4]
    assert doubling.told.reasons == ["ending"]


def test_an_end_that_does_not_come_leaves_nobody_waiting(doubling: Doubling) -> None:
    async def ask() -> None:
        first = await doubling.held()
        waits = asyncio.create_task(doubling.batcher.ask(2, seconds=20))
        await _waiting(doubling.batcher, 1)
        await asyncio.to_thread(doubling.batcher.end, 0.01)
        with pytest.raises(BusyError, match="has ended"):
            await waits
        doubling.gate.set()
        assert (await first).result == 0

    doubling.run(ask())
    assert doubling.seen == [[0]]


def test_whoever_comes_meanwhile_does_not_wait_for_a_whole_batch_of_answers(doubling: Doubling) -> None:
    order: list[str] = []

    async def answered(number: int) -> None:
        await doubling.batcher.ask(number, seconds=20)
        order.append("answer")
        if len(order) == 1:
            # As a refusal does: it is ready once the first answer has gone out.
            asyncio.get_running_loop().call_soon(order.append, "refusal")

    async def ask() -> None:
        first = await doubling.held()
        others = [asyncio.create_task(answered(2 * n)) for n in range(40)]
        await _waiting(doubling.batcher, 40)
        doubling.gate.set()
        await asyncio.gather(first, *others)

    doubling.run(ask())
    assert order.count("answer") == 40
    assert doubling.seen[1:] == [[2 * n for n in range(40)]]
    assert order.index("refusal") < 10
