"""Batches prepared ahead by a thread, in order: what a step sees does not depend on it."""

import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def prefetched(make: Callable[[int], T], steps: Sequence[int], ahead: int) -> Iterator[Iterator[T]]:
    """Iterate over make(step) for the steps in order.

    Args:
        make: a pure function of the step; an error in it is raised where its result is due.
        steps: what to call it with.
        ahead: most results waiting at any time; 0 calls `make` in this thread when a result is due.

    Leaving the block drops what is still waiting and ends the thread.
    """
    if ahead == 0:
        yield map(make, steps)
        return
    context = contextvars.copy_context()
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="recsys-batches") as pool:

        def results() -> Iterator[T]:
            rest = iter(steps)
            waiting.extend(pool.submit(context.run, make, step) for step in islice(rest, ahead))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(context.run, make, step) for step in islice(rest, 1))
                yield result

        try:
            yield results()
        finally:
            for future in waiting:
                future.cancel()
