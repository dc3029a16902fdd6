"""One launch of a compiled kernel on as many threads as torch uses.

The threads are plain Python ones, asleep between launches; a kernel runs without the interpreter lock and
takes its tasks from a shared counter, so that a late or busy thread delays nobody. Why not numba's
prange: its OpenMP threads spin on the cores that torch wants next, abort a forked process, and its
fallback layer aborts when two threads of a server launch at once. Which thread takes which task changes no
result: every task has its own outputs.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

__all__ = ["launch", "threads_for"]

STEPS_PER_THREAD = 400_000
"""Work, in elementary steps of about 0.3 ns, below which waking another thread costs more than it saves."""

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def threads_for(tasks: int, steps: int) -> int:
    """Return how many threads a launch is worth, at most `torch.get_num_threads()`.

    Args:
        tasks: number of independent tasks.
        steps: size of the whole work in elementary steps.
    """
    return max(1, min(torch.get_num_threads(), tasks, steps // STEPS_PER_THREAD))


def launch(worker: Callable[..., Any], threads: int, *args: Any) -> None:
    """Run `worker(slot, queue, *args)` on `threads` threads and wait for all of them.

    Args:
        worker: compiled with nogil; draws the numbers of its tasks with `next_task(queue)` until they
            exceed the work.
        threads: how many; this thread is one of them.
        args: passed on. `slot`, below `threads`, tells a worker which scratch space is its own.
    """
    queue = np.zeros(1, np.int64)
    helpers: list[Future[Any]] = []
    if threads > 1:
        pool = _pool(threads)
        helpers = [pool.submit(worker, slot, queue, *args) for slot in range(1, threads)]
    try:
        worker(0, queue, *args)
    finally:
        # Out of work: a helper that has not begun is not worth waiting for.
        begun = [helper for helper in helpers if not helper.cancel()]
        for helper in begun:
            helper.result()


def _pool(threads: int) -> ThreadPoolExecutor:
    """Return this process's pool; threads do not survive a fork, so a child makes its own."""
    pid = os.getpid()
    with _lock:
        pool = _pools.get(pid)
        if pool is None or pool._max_workers < threads - 1:
            _pools.clear()
            pool = _pools[pid] = ThreadPoolExecutor(threads - 1, thread_name_prefix="recsys-kernels")
        return pool
