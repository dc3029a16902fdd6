"""One call timed by pytest-benchmark, and what its median is in events, bytes and of the machine's limits."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from recsys.benchmarks.kernels import limit_of
from recsys.benchmarks.kernels.case import Case

__all__ = ["Meter"]

SLOW, SLOWEST = 0.3, 3.0
"""Seconds above which a call is timed in 3 rounds, and in one."""


class Meter:
    """What a test times its work with.

    Args:
        benchmark: pytest-benchmark's fixture.
        limits: as `measure_limits` gives them; None where nothing is timed.
    """

    def __init__(self, benchmark: Any, limits: Mapping[str, float] | None) -> None:
        self._benchmark = benchmark
        self._limits = limits

    def __call__(
        self,
        call: Callable[[], Any],
        *,
        group: str,
        case: Case | None = None,
        events: int = 0,
        bytes_moved: float = 0.0,
    ) -> Any:
        """Time a call after one that compiles and maps what it needs.

        Args:
            call: the work.
            group: what it is compared with in the table: the operation and its shape.
            case: a kernel's comparison, for what its work comes to; its events count.
            events: events, queries or rows that the call works on.
            bytes_moved: inputs read and outputs written, where there is no case.

        Returns:
            What the call returned.
        """
        self._benchmark.group = group
        if self._limits is None:
            return self._benchmark(call)
        took = _seconds(call)
        if took > SLOW:  # for the compiler, perhaps
            took = min(took, _seconds(call))
        if took > SLOW:
            made = self._benchmark.pedantic(call, rounds=1 if took > SLOWEST else 3)
        else:
            made = self._benchmark(call)
        median = self._benchmark.stats.stats.median
        facts: dict[str, Any] = {"threads": torch.get_num_threads()}
        if case is not None:
            limit = limit_of(case, median, dict(self._limits))
            events, bytes_moved = case.events, case.work.bytes
            facts |= {"limit": limit["by"], "fraction_of_limit": float(f"{limit['fraction']:.3g}")}
            if case.work.state_steps:
                facts["state_steps_per_s"] = float(f"{case.work.state_steps / median:.4g}")
        if events:
            facts |= {"events": events, "events_per_s": float(f"{events / median:.4g}")}
        if bytes_moved:
            facts["bytes"] = int(bytes_moved)
        self._benchmark.extra_info.update(facts)
        return made


def _seconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began
