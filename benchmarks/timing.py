"""Fair times: sides take turns in one process, and what counts is the median of each round's ratio."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["alternate", "spread", "summarize"]

Call = Callable[[], Any]


def alternate(
    sides: Mapping[str, Call],
    *,
    device: torch.device,
    seconds: float,
    least: int = 3,
    most: int = 25,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time the sides in turn, the order reversed every other round.

    Args:
        sides: name to what is timed; called once before, so that it is compiled.
        device: "cuda" is timed by events on the stream, behind a wait that lets the host get ahead, with the
            second-level cache flushed before each call; a CPU by the clock.
        seconds: time after which no further round begins.
        least: rounds, however long they take.
        most: rounds, however short they are.
        clock: of a CPU; `time.process_time` does not count what other processes took from this one, and
            counts every thread.

    Returns:
        Seconds of every round by side.
    """
    measure = _CudaClock(device) if device.type == "cuda" else _CpuClock(clock)
    times: dict[str, list[float]] = {name: [] for name in sides}
    started = time.perf_counter()
    rounds = 0
    while rounds < most and (rounds < least or time.perf_counter() - started < seconds):
        names = list(sides) if rounds % 2 == 0 else list(sides)[::-1]
        for name in names:
            times[name].append(measure(sides[name]))
        rounds += 1
    return times


def summarize(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians of the first side, "ours", and of its rivals, and how many times slower each rival is."""
    ours, *rivals = times
    return {
        "ours_ms": spread([1e3 * t for t in times[ours]]),
        "rounds": len(times[ours]),
        "rivals": {
            name: {
                "ms": spread([1e3 * t for t in times[name]]),
                "ratio": spread([b / a for a, b in zip(times[ours], times[name], strict=True)]),
            }
            for name in rivals
        },
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest, to four digits."""
    rounded = [float(f"{v:.4g}") for v in (statistics.median(values), min(values), max(values))]
    return dict(zip(("median", "min", "max"), rounded, strict=True))


class _CpuClock:
    """Times a call by a clock of the host."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def __call__(self, call: Call) -> float:
        started = self._clock()
        call()
        return self._clock() - started


class _CudaClock:
    """Times what a call puts on the stream, not the host that puts it there."""

    def __init__(self, device: torch.device) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)
        # Twice the second-level cache of an H200.
        self._flush = torch.empty(128 << 20, dtype=torch.int8, device=device)

    def __call__(self, call: Call) -> float:
        self._flush.zero_()
        torch.cuda._sleep(2_000_000)  # about a millisecond, in which the host queues the whole call
        self._start.record()
        call()
        self._end.record()
        torch.cuda.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1e3
