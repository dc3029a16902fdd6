"""What a call launches on the device: how many kernels, how long each, how long the device waits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Launch", "profile", "tabulate"]

MOST_ROWS = 15


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel or copy on the device, in microseconds of one clock."""

    name: str
    start: float
    end: float


def profile(call: Callable[[], Any], device: torch.device, *, calls: int) -> dict[str, Any]:
    """Run a call so many times under PyTorch's profiler, after one that compiles; see `tabulate`.

    On a CPU the operators that the call names itself stand for launches, which proves that this runs.
    """
    activity, on_gpu = torch.profiler.ProfilerActivity, device.type == "cuda"
    call()
    if on_gpu:
        torch.cuda.synchronize()
    with torch.profiler.profile(activities=[activity.CUDA if on_gpu else activity.CPU]) as found:
        for _ in range(calls):
            call()
        if on_gpu:
            torch.cuda.synchronize()
    wanted = "CUDA" if on_gpu else "CPU"
    launches = [
        Launch(event.name, event.time_range.start, event.time_range.end)
        for event in found.events() or ()
        if event.device_type.name == wanted
        and not getattr(event, "is_user_annotation", False)
        and (on_gpu or event.cpu_parent is None)
    ]
    return tabulate(launches, calls)


def tabulate(launches: Sequence[Launch], calls: int) -> dict[str, Any]:
    """Add launches up by name.

    Args:
        launches: of all calls.
        calls: how many.

    Returns:
        Of one call: launches, copies among them, span_ms from the first launch to the last one's end, busy_ms
        in which at least one ran, gaps_ms in which none did, gap_share; rows of the kernels that take most,
        with their launches, ms and share of the busy time; others_ms of the rest.
    """
    if not launches:
        return {"launches": 0.0, "copies": 0.0, "span_ms": 0.0, "busy_ms": 0.0, "gaps_ms": 0.0, "rows": []}
    busy, until = 0.0, float("-inf")
    for launch in sorted(launches, key=lambda launch: launch.start):
        busy += max(0.0, launch.end - max(launch.start, until))
        until = max(until, launch.end)
    span = until - min(launch.start for launch in launches)
    by_name: dict[str, list[float]] = {}
    for launch in launches:
        by_name.setdefault(launch.name, []).append(launch.end - launch.start)
    ordered = sorted(by_name.items(), key=lambda item: -sum(item[1]))
    spent = sum(map(sum, by_name.values()))
    ms = 1e-3 / calls
    return {
        "launches": len(launches) / calls,
        "copies": sum(launch.name.startswith(("Memcpy", "Memset")) for launch in launches) / calls,
        "span_ms": span * ms,
        "busy_ms": busy * ms,
        "gaps_ms": (span - busy) * ms,
        "gap_share": (span - busy) / span if span else 0.0,
        "rows": [
            {
                "name": name[:120],
                "launches": len(times) / calls,
                "ms": sum(times) * ms,
                "share": sum(times) / spent if spent else 0.0,
            }
            for name, times in ordered[:MOST_ROWS]
        ],
        "others_ms": sum(sum(times) for _, times in ordered[MOST_ROWS:]) * ms,
    }
