"""Compile many recorded launches at once, in processes of their own."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from recsys.kernels.launching import interpreting
from recsys.kernels.launching.machine_code import ARCHITECTURES, Resources, compile_launch
from recsys.kernels.launching.operations import operations, record_operation
from recsys.kernels.launching.recording import Launch
from recsys.kernels.launching.table import Key, key_of

__all__ = ["compile_all", "recorded", "spread"]


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
    """Compile launches by their keys, in order; in place of the resources, words on what went wrong.

    Args:
        keys: of `recorded`.
        processes: how many compile at a time.
        progress: told the number done.

    Raises:
        RuntimeError: `TRITON_INTERPRET` is set.
    """
    if interpreting():
        raise RuntimeError("TRITON_INTERPRET is set: compile in a process without it")
    # Spawned, since the parent's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for done, (key, result) in enumerate(zip(keys, pool.map(_compile, keys), strict=True), start=1):
            progress(done)
            yield key, result


def _compile(key: Key) -> Resources | str:
    for launch in record_operation(key.operation, key.chip):
        if key_of(key.operation, launch, key.chip) == key:
            try:
                return compile_launch(launch, key.chip)
            except Exception as error:  # the compiler's errors share no class
                return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "no compile case launches it"
