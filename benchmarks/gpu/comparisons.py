"""Cases of `recsys.benchmarks.kernels` as tasks of a stage: time, share of the limit, bits, memory."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from recsys.benchmarks.gpu.stages import Scale, Task
from recsys.benchmarks.kernels import cases_of
from recsys.benchmarks.kernels.case import Case, compared
from recsys.benchmarks.kernels.measuring import measure, peaks, same_bits

__all__ = ["as_task", "comparisons"]

_DRY = 2


def comparisons(operations: Sequence[str], scale: Scale) -> Iterator[Task]:
    """Every comparison of some operations; dry, the first of each."""
    for name in operations:
        cases = cases_of(name)(scale.device, scale.dtypes, scale.events)
        try:
            for case in islice(cases, _DRY if scale.dry else None):
                yield as_task(case, scale)
        except Exception as error:  # making a case failed: the other operations go on
            yield _broken(f"{name}, its further cases", error)


def _broken(name: str, error: Exception) -> Task:
    def fail() -> dict[str, Any]:
        raise error

    return Task(name, fail, fail)


def as_task(
    case: Case, scale: Scale, more: Callable[[], dict[str, Any]] = dict, *, compiles: bool = True
) -> Task:
    """One comparison.

    Args:
        case: ready to run.
        scale: of the stage.
        more: what else its entry holds; called after the rest.
        compiles: whether the rivals compile anything, so that they have to be warmed up, too.
    """

    def warm() -> None:
        for side in compared(case.sides).values() if compiles else [case.sides[case.ours]]:
            with contextlib.suppress(Exception):  # `measure` says why
                side()

    def measured() -> dict[str, Any]:
        entry = measure(case, scale.device, scale.seconds, scale.limits)
        if case.repeatable:
            entry["same_bits"] = same_bits(case.sides[case.ours], scale.runs)
        if scale.device.type == "cuda":
            entry["peak_mib"] = peaks(case)
        return entry | more()

    return Task(case.name, warm, measured)
