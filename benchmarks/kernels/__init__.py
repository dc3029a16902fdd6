"""Every kernel against named rivals on the same numbers, the sides taking turns; medians and ratios."""

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from recsys.benchmarks.kernels.case import Case
from recsys.benchmarks.kernels.measuring import TOLERANCE, apart, limit_of, measure
from recsys.benchmarks.kernels.shapes import EVENTS
from recsys.benchmarks.machine import stamp
from recsys.errors import ArgumentError

__all__ = [
    "COMPARED",
    "COUNTS",
    "TOLERANCE",
    "apart",
    "cases_of",
    "choose_device",
    "limit_of",
    "measure",
    "run",
]

COUNTS = {
    "scan": 16,
    "conv": 8,
    "attention": 12,
    "clock": 4,
    "pointwise": 8,
    "linear": 4,
    "repeats": 4,
    "cross_entropy": 4,
    "sampled_loss": 4,
    "sampling": 2,
    "embedding": 2,
    "bags": 2,
    "lazy_adamw": 1,
    "ranking": 5,
    "rescoring": 1,
    "local_aggregation": 1,
}
"""Every operation, and how many comparisons of it there are on a CPU, by which the budget of time is shared
out; on a GPU the calls are short. `recsys.benchmarks.catalog_speed` has more sizes of the catalog's."""

COMPARED = tuple(COUNTS)
"""Operations that have a module here."""

Cases = Callable[[torch.device, tuple[torch.dtype, ...], int], Iterator[Case]]


def run(
    *,
    device: str = "auto",
    only: str | None = None,
    seconds: float = 150.0,
    events: int = EVENTS,
    keep: Callable[[dict[str, Any]], object] = lambda result: None,
    plots: Path | None = None,
) -> dict[str, Any]:
    """Time the kernels, and how an encoder streams.

    Args:
        device: auto, cpu or cuda.
        only: operations, with commas between, of `COMPARED` and "streaming"; None is all.
        seconds: about how long all comparisons may take together. On a CPU each runs three rounds at least;
            on a GPU those that would begin later are left out, and named.
        events: of a batch.
        keep: given the result so far after each comparison, in case the run is cut off.
        plots: folder for the roofline plot, which a GPU gives.

    Returns:
        One JSON object.

    Raises:
        ArgumentError: an operation or a device is unknown, or there is no GPU.
    """
    where = choose_device(device)
    names = _choose(only, where)
    dtypes = (torch.bfloat16, torch.float32) if where.type == "cuda" else (torch.float32,)
    result: dict[str, Any] = {"benchmark": "kernels", **stamp(), "device": where.type, "comparisons": []}
    if where.type == "cuda":
        from recsys.benchmarks.kernels.limits import measure_limits

        result["limits"] = measure_limits(where)
    began, total = time.perf_counter(), sum(COUNTS.get(name, 0) for name in names) or 1
    share = seconds / total if where.type == "cpu" else 0.3
    gc.collect()
    gc.freeze()  # what is there already, modules above all, need not be looked through after each comparison
    for name in names:
        if name == "streaming":
            from recsys.benchmarks.kernels.streaming import measure_streaming

            result["streaming"] = measure_streaming()
            continue
        for case in cases_of(name)(where, dtypes, events):
            if where.type == "cuda" and time.perf_counter() - began > seconds:
                result.setdefault("left_out", []).append(case.name)
                continue
            result["comparisons"].append(measure(case, where, share, result.get("limits")))
            keep(result)
            gc.collect()
    gc.unfreeze()
    if plots is not None and where.type == "cuda":
        from recsys.benchmarks.kernels.roofline import plot

        result["plots"] = [str(path) for path in plot(result, plots)]
    return result


def choose_device(name: str) -> torch.device:
    """The device of a name; auto is the GPU where there is one.

    Raises:
        ArgumentError: the name is unknown, or there is no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"device {name!r}: choose auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ArgumentError("device 'cuda': PyTorch finds no GPU here; choose cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _choose(only: str | None, where: torch.device) -> list[str]:
    known = (*COMPARED, "streaming")
    names = [name.strip() for name in only.split(",")] if only else list(known)
    if not only and where.type == "cuda":
        names.remove("streaming")  # it times the CPU
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ArgumentError(f"operation {unknown[0]!r} has no comparison: choose of {', '.join(known)}")
    return names


def cases_of(name: str) -> Cases:
    """The function that makes an operation's comparisons for (device, dtypes, events)."""
    import importlib

    cases: Cases
    cases = importlib.import_module(f"recsys.benchmarks.kernels.{name}").cases
    return cases
