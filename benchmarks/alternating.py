"""Timings on a CPU as the catalog's programs record them: every time, medians, ratios of neighbours.

A busy or throttled machine slows whole rounds; the ratio of two runs that lie side by side hardly moves.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from recsys.benchmarks import timing

Work = Callable[[], object]


def alternate(sides: Mapping[str, Work], *, base: str, rounds: int, warm: int = 2) -> dict[str, Any]:
    """Time each side once per round.

    Args:
        sides: name to work; what it returns is dropped.
        base: the side that the others are divided by.
        rounds: timed rounds.
        warm: rounds before, in which kernels compile and pages are mapped.

    Returns:
        Per side the median in milliseconds, all times, and for each other side the median, lowest and highest
        of its time over the base's in the same round: above 1 the base is faster.
    """
    for _ in range(warm):
        for work in sides.values():
            work()
    times = timing.alternate(sides, device=torch.device("cpu"), seconds=0.0, least=rounds, most=rounds)
    result: dict[str, Any] = {}
    for name, found in times.items():
        record: dict[str, Any] = {
            "median_ms": 1e3 * statistics.median(found),
            "times_ms": [round(1e3 * t, 4) for t in found],
        }
        if name != base:
            ratios = [t / own for t, own in zip(found, times[base], strict=True)]
            record["times_base"] = {
                "median": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
        result[name] = record
    return result


def lines(case: str, result: Mapping[str, Any]) -> list[str]:
    """A result as a person reads it."""
    found = [case]
    for name, record in result.items():
        ratio = record.get("times_base")
        text = f"  {name:<28} {record['median_ms']:>10.2f} ms"
        if ratio is not None:
            text += f"   {ratio['median']:.2f} x ours ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
        found.append(text)
    return found
