"""Compile many recorded launches at once, in processes of their own."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

from recsys.kernels.shared.launching import interpreting
from recsys.kernels.shared.launching.machine_code import ARCHITECTURES, Resources, compile_launch
from recsys.kernels.shared.launching.operations import operations, record_operation
from recsys.kernels.shared.launching.recording import Launch
from recsys.kernels.shared.launching.table import Key, key_of

__all__ = ["compile_all", "compile_each", "recorded", "spread"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def recorded() -> dict[Key, Launch]:
    """Every launch of every operation for every chip that we compile for."""
    return {
        key_of(operation, launch, architecture): launch
        for operation in operations()
        for architecture in ARCHITECTURES
        for launch in record_operation(operation, architecture)
    }


def spread(keys: Sequence[Key]) -> list[Key]:
    """Choose one key of each kernel, the chips in turn: a choice fixed by the keys."""
    groups: dict[tuple[str, str], dict[str, Key]] = {}
    for key in sorted(keys, key=Key.order):
        groups.setdefault((key.operation, key.kernel), {}).setdefault(key.chip, key)
    return [list(group.values())[turn % len(group)] for turn, group in enumerate(groups.values())]


def compile_all(
    keys: Sequence[Key], processes: int, progress: Callable[[int], None] = lambda done: None
) -> Iterator[tuple[Key, Resources | str]]:
    """Compile launches by their keys; results come as they are ready.

    Args:
        keys: of `recorded`.
        processes: how many compile at a time.
        progress: told the number done.

    Yields:
        A key and its resources, or words on what went wrong.

    Raises:
        RuntimeError: `TRITON_INTERPRET` is set.
    """
    return compile_each(_compile, keys, processes, progress)


def compile_each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    processes: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Item, Result | str]]:
    """Do what compiles for each item, in processes of their own; results come as they are ready.

    An assertion that fails in the compiler ends its process: a new one goes on with the next item.

    Args:
        work: a function of a module.
        items: what it takes; they are pickled on their way.
        processes: how many work at a time.
        progress: told the number done.

    Yields:
        An item and its result, or words on how the process ended.

    Raises:
        RuntimeError: `TRITON_INTERPRET` is set.
    """
    if interpreting():
        raise RuntimeError("TRITON_INTERPRET is set: compile in a process without it")
    waiting, done = list(reversed(items)), 0
    workers = [_Worker(work, waiting.pop()) for _ in range(min(processes, len(items)))]
    try:
        while workers:
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                item, result = worker.item, worker.result()
                workers.remove(worker)
                if waiting:
                    workers.append(worker.go_on(waiting.pop()))
                else:
                    worker.end()
                done += 1
                progress(done)
                yield item, result
    finally:
        for worker in workers:
            worker.end()


class _Worker(Generic[Item, Result]):
    """A process that works on one item after another."""

    def __init__(self, work: Callable[[Item], Result], item: Item) -> None:
        self._work = work
        # Spawned, since the parent's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.go_on(item)

    def go_on(self, item: Item) -> "_Worker[Item, Result]":
        """Give the next item; to a new process, if this one has died."""
        if not self._process.is_alive():
            return _Worker(self._work, item)
        self.item = item
        self.pipe.send(item)
        return self

    def result(self) -> Result | str:
        """Take the result that is ready."""
        try:
            made: Result = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            return f"the compiler ended its process ({self._process.exitcode})"
        return made

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def _serve(work: Callable[[Any], Any], pipe: Any) -> None:
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(work(pipe.recv()))


def _compile(key: Key) -> Resources | str:
    for launch in record_operation(key.operation, key.chip):
        if key_of(key.operation, launch, key.chip) == key:
            try:
                return compile_launch(launch, key.chip)
            except Exception as error:  # the compiler's errors share no class
                return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "no compile case launches it"
