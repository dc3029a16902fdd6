"""Every kernel against named rivals on the same numbers, the sides taking turns; medians and ratios."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import Case, compared
from recsys.benchmarks.kernels.shapes import EVENTS
from recsys.benchmarks.machine import stamp
from recsys.benchmarks.timing import alternate, summarize
from recsys.errors import ArgumentError

__all__ = ["COMPARED", "COUNTS", "TOLERANCE", "apart", "cases_of", "choose_device", "limit_of", "run"]

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


TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""How far apart two results may be, relative to their norm, to count as the same."""


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
            result["comparisons"].append(_measure(case, where, share, result.get("limits")))
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


def _measure(
    case: Case, device: torch.device, seconds: float, limits: dict[str, float] | None
) -> dict[str, Any]:
    """Time one case; a rival that cannot run, or computes something else, is left out and says why."""
    started = time.perf_counter()
    sides, failures = compared(case.sides), {}
    ours, *rivals = sides
    wanted = sides[ours]()
    for name in rivals:
        try:
            result = sides[name]()
        except Exception as error:  # a library that is not ours
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            del sides[name]
            continue
        if (
            name in case.upstreams
            and (distance := apart(case, (ours, wanted), (name, result))) > TOLERANCE[case.dtype]
        ):
            failures[name] = f"its result is {distance:.1e} apart from ours"
            del sides[name]
        del result
    del wanted
    entry: dict[str, Any] = {
        "operation": case.operation,
        "direction": case.direction,
        "shape": case.shape,
        "d_model": case.d_model,
        "dtype": case.dtype,
        "events": case.events,
        **summarize(alternate(sides, device=device, seconds=seconds)),
    }
    if failures:
        entry["failures"] = failures
    per_second = 1e3 / entry["ours_ms"]["median"]
    entry["events_per_s"] = case.events * per_second
    if case.work.state_steps:
        entry["state_steps_per_s"] = case.work.state_steps * per_second
    entry.update(case.facts)
    if case.target is not None and case.target[0] in entry["rivals"]:
        rival, wanted = case.target
        ratio = entry["rivals"][rival]["ratio"]["median"]
        entry["target"] = {"rival": rival, "ratio": wanted, "met": ratio >= wanted}
    if limits is not None:
        entry["limit"] = limit_of(case, entry["ours_ms"]["median"] / 1e3, limits)
    print(f"{case.name}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    return entry


def apart(case: Case, ours: tuple[str, Tensor], theirs: tuple[str, Tensor]) -> float:
    """Difference of two results along one random vector, relative to their norm."""
    (name, result), (rival, other) = ours, theirs
    a = (result.double() * case.upstreams[name].double()).sum()
    b = (other.double() * case.upstreams[rival].double()).sum()
    return float((a - b).abs() / result.double().norm())


def limit_of(case: Case, took: float, limits: dict[str, float]) -> dict[str, Any]:
    """Which limit of the device the least work meets first, and what fraction of it was reached."""
    work = case.work
    product = "float32_flops" if case.dtype == "float32" else "bfloat16_flops"
    needed = {
        "memory": work.bytes / limits["copy_bytes"],
        "matrix products": work.flops / limits[product],
        "exponentials": work.exps / limits["exps"],
    }
    bound = max(needed, key=lambda name: needed[name])
    return {
        "by": bound,
        "fraction": needed[bound] / took,
        "bytes": work.bytes,
        "flops": work.flops,
        "exps": work.exps,
    }
