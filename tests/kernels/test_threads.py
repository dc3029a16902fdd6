import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from recsys.kernels.shared.threads import STEPS_PER_THREAD, launch, threads_for


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("tasks", "steps", "threads"),
    [
        (10, 100 * STEPS_PER_THREAD, 3),
        (2, 100 * STEPS_PER_THREAD, 2),
        (10, 2 * STEPS_PER_THREAD, 2),
        (10, 1, 1),
        (0, 0, 1),
    ],
)
def test_no_more_threads_than_torch_uses_tasks_allow_or_work_deserves(
    tasks: int, steps: int, threads: int
) -> None:
    assert threads_for(tasks, steps) == threads


def test_each_thread_works_with_its_own_slot_on_the_same_tickets() -> None:
    meeting = threading.Barrier(3, timeout=30)
    seen: list[tuple[int, int, str]] = []

    def worker(slot: int, queue: Any, word: str) -> None:
        meeting.wait()
        seen.append((slot, id(queue), word))

    launch(worker, 3, "word")
    assert sorted(slot for slot, _, _ in seen) == [0, 1, 2]
    assert len({queue for _, queue, _ in seen}) == 1
    assert {word for _, _, word in seen} == {"word"}


def test_one_thread_stays_on_the_callers() -> None:
    seen: list[threading.Thread] = []
    launch(lambda slot, queue: seen.append(threading.current_thread()), 1)
    assert seen == [threading.current_thread()]


def test_a_helper_that_has_begun_is_waited_for() -> None:
    begun = threading.Event()
    done: list[int] = []

    def worker(slot: int, queue: Any) -> None:
        if slot:
            begun.set()
            time.sleep(0.05)
            done.append(slot)
        else:
            assert begun.wait(30)

    launch(worker, 2)
    assert done == [1]


def test_an_error_of_a_helper_reaches_the_caller() -> None:
    begun = threading.Event()

    def worker(slot: int, queue: Any) -> None:
        if slot:
            begun.set()
            raise RuntimeError("broken task")
        assert begun.wait(30)

    with pytest.raises(RuntimeError, match="broken task"):
        launch(worker, 2)


def test_callers_on_several_threads_do_not_wait_for_ever() -> None:
    totals = [0] * 4

    def call(i: int) -> None:
        def worker(slot: int, queue: Any) -> None:
            totals[i] += 1

        for _ in range(50):
            launch(worker, 3)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive()
    assert all(50 <= total <= 150 for total in totals)
