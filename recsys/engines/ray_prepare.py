"""Preparing a store of shards by a Ray cluster: the pieces of work of `prepare(shards=)` as tasks of Ray.

What the pieces hand on lies in files beside the store, so that Ray carries what a piece is called with and
what it found out, not the log; a piece that lost its worker or machine is done again and writes the same
files.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.engines.ray_cluster import need_ray, ray_cluster
from recsys.engines.ray_workers import MOST_LOST
from recsys.errors import ArgumentError, RecsysError, RunError

Result = TypeVar("Result")


def prepare_with_ray(
    log: Any,
    out: str | Path,
    *,
    shards: int | None,
    workers: int | None = None,
    address: str | None = None,
    **options: Any,
) -> SequenceStore:
    """Prepare a log into a store of shards by workers of a Ray cluster; the same bytes as `prepare`.

    Args:
        log: as of `prepare`; a path has to be where every machine of the cluster finds it.
        out: folder to write, as well.
        shards: of the store.
        workers: pieces of work at a time; None for one a processor.
        address: of a running cluster, ``"auto"`` or ``"HOST:PORT"``; None starts one on this machine, if
            there is anything to do.
        options: all others of `prepare`.

    Raises:
        MissingDependencyError: Ray is not installed.
        ArgumentError, DataError: as `prepare`, or no shards are asked for.
        RunError: no cluster, or a piece of work ended one worker after the other.
    """
    need_ray()
    if shards is None:
        raise ArgumentError("Ray prepares stores of shards: pass shards=")
    with _OnRay(address, workers) as each:
        return prepare(log, out, shards=shards, each=each, **options)


class _OnRay:
    """Does pieces of work on a cluster, which is there from the first one on.

    Args:
        address: of the cluster; None for one of this machine.
        workers: pieces at a time; None for one a processor.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        self._address, self._workers = address, workers
        self._ending = ExitStack()
        self._ray: Any = None

    def __enter__(self) -> "_OnRay":
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.close()

    def __call__(
        self, function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """Results of ``function(*one)`` for each of the arguments, in their order.

        Raises:
            RecsysError: as a piece raised it.
            RunError: a piece ended its workers.
        """
        if self._ray is None:
            self._ray = self._ending.enter_context(ray_cluster(self._address, cpus=self._workers))
        ray = self._ray
        at_a_time = self._workers or int(ray.cluster_resources().get("CPU", 1))
        task = ray.remote(_do).options(max_retries=MOST_LOST - 1, scheduling_strategy="SPREAD")
        waiting = deque(enumerate(arguments))
        under_way: dict[Any, int] = {}
        done: dict[int, Result] = {}
        try:
            for place in range(len(arguments)):
                while place not in done:
                    while waiting and len(under_way) < at_a_time:
                        number, one = waiting.popleft()
                        under_way[task.remote(function, one)] = number
                    (ended,), _ = ray.wait(list(under_way), num_returns=1)
                    done[under_way.pop(ended)] = _result(ray, ended)
                yield done.pop(place)
        finally:
            for call in under_way:
                ray.cancel(call, force=True)


def _do(function: Callable[..., Result], one: tuple[Any, ...]) -> tuple[Result | None, RecsysError | None]:
    """What a piece found out, or what it refused, which Ray would wrap into a traceback of its own."""
    # Read when polars computes first: a worker has one processor.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    try:
        return function(*one), None
    except RecsysError as error:
        return None, error


def _result(ray: Any, ended: Any) -> Any:
    try:
        found, refused = ray.get(ended)
    except ray.exceptions.RayTaskError:
        raise  # a mistake of ours: its traceback is wanted
    except ray.exceptions.RayError as failure:
        reason = str(failure).strip().splitlines()
        raise RunError(
            f"a piece of the preparation ended its worker, {MOST_LOST} times "
            f"({reason[0] if reason else type(failure).__name__}): for want of memory, pass more shards="
        ) from None
    if refused is not None:
        raise refused
    return found
