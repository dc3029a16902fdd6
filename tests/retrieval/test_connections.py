import threading
from collections.abc import Callable

import pytest

from recsys.retrieval.connections import Connections


class LostError(Exception):
    pass


class Line:
    """A connection that remembers what became of it."""

    def __init__(self) -> None:
        self.open = True


def make(mends: bool = False) -> tuple[Connections[Line], list[Line]]:
    made: list[Line] = []

    def connect() -> Line:
        made.append(Line())
        return made[-1]

    def close(line: Line) -> None:
        line.open = False

    return Connections(connect, close, LostError, mends=mends), made


def failing(times: int, error: Exception) -> tuple[Callable[[Line], str], list[Line]]:
    used: list[Line] = []

    def work(line: Line) -> str:
        used.append(line)
        if len(used) <= times:
            raise error
        return "done"

    return work, used


def test_one_is_kept_and_two_threads_have_two() -> None:
    connections, made = make()
    for _ in range(3):
        assert connections.call(lambda line: line.open)
    assert len(made) == 1
    both = threading.Barrier(2)
    threads = [
        threading.Thread(target=connections.call, args=(lambda _: both.wait(5),), name=f"t{i}")
        for i in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2


def test_a_kept_one_that_is_lost_is_tried_once_more_by_a_new_one() -> None:
    connections, made = make()
    connections.call(lambda _: None)
    work, used = failing(1, LostError())
    assert connections.call(work) == "done"
    assert used == made
    assert [line.open for line in made] == [False, True]


def test_one_that_mends_is_tried_again_and_kept() -> None:
    connections, made = make(mends=True)
    connections.call(lambda _: None)
    work, used = failing(1, LostError())
    assert connections.call(work) == "done"
    assert used == made * 2
    work, used = failing(2, LostError())
    with pytest.raises(LostError):
        connections.call(work)
    assert len(used) == 2
    assert len(made) == 1
    assert made[0].open


@pytest.mark.parametrize("mends", [False, True])
def test_other_errors_are_raised_at_once_and_close_it(mends: bool) -> None:
    connections, made = make(mends)
    connections.call(lambda _: None)
    work, used = failing(1, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        connections.call(work)
    assert len(used) == 1
    assert not made[0].open
    work, used = failing(1, LostError())
    with pytest.raises(LostError):  # of a new one there is nothing to be learned by another try
        connections.call(work)
    assert len(used) == 1


def test_all_are_closed_with_their_owner() -> None:
    connections, made = make()
    connections.call(lambda _: None)
    del connections
    assert not made[0].open
