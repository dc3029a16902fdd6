"""What a forked child lacks: the threads of polars' and of OpenMP's pools, which stay with the parent.

A child that waits for them waits for ever (`multiprocessing` by fork, gunicorn's ``--preload``). So torch
goes on with one thread in a child, and what needs polars' pool, such as reading Parquet, is refused in one
line where the parent had begun to use it. A lock that such a thread held would stay shut as well: see `Lock`.
"""

import os
import re
import sys
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

from recsys.errors import RunError

_TASKS = Path("/proc/self/task")
_POOL = re.compile(r"^polars-\d+$")

_lost = False
_found_before = False
_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()


class Lock:
    """A lock that a forked child finds open where another thread of its parent held it, which is not there.

    Args:
        again: whether the thread that holds it may take it again.
    """

    def __init__(self, *, again: bool = False) -> None:
        self._make = threading.RLock if again else threading.Lock
        self._lock: Any = self._make()
        self._holder: int | None = None
        self._times = 0
        _locks.add(self)

    def renew(self) -> None:
        """Open it in a child, unless the thread that forked holds it itself."""
        if self._holder != threading.get_ident():
            self._lock, self._holder, self._times = self._make(), None, 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = threading.get_ident()
        self._times += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._times -= 1
        if not self._times:
            self._holder = None
        self._lock.release()


def polars_is_lost() -> bool:
    """Whether this process was forked from one whose polars had threads."""
    return _lost


def need_polars(what: str) -> None:
    """Refuse where polars would wait for ever.

    Args:
        what: is to be done, or the file to be read or written.

    Raises:
        RunError: this process was forked from one whose polars had threads.
    """
    if _lost:
        raise RunError(
            f"{what}: not possible in a process that was forked after polars had been used, where it would "
            "hang: load the run before the fork, or start workers by spawn"
        )


def need_device(device: str) -> None:
    """Refuse a GPU in a forked child, which cannot use its parent's.

    Args:
        device: kind of device that holds the model.

    Raises:
        RunError: this process was forked from one that had begun to use the GPU.
    """
    torch = sys.modules.get("torch")
    if device == "cuda" and torch is not None and torch.cuda._is_in_bad_fork():
        raise RunError(
            "a forked process cannot use its parent's GPU: start workers by spawn, or load with device='cpu'"
        )


def _before() -> None:
    global _found_before
    _found_before = _lost or ("polars" in sys.modules and _pool_runs())


def _pool_runs() -> bool:
    """Whether polars has threads; where they cannot be listed, that it was imported is enough."""
    try:
        return any(_POOL.match((task / "comm").read_text().strip()) for task in _TASKS.iterdir())
    except OSError:
        return True


def _in_child() -> None:
    global _lost
    _lost = _found_before
    for lock in list(_locks):
        lock.renew()
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


os.register_at_fork(before=_before, after_in_child=_in_child)
