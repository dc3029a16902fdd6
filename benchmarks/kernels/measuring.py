"""What one comparison gives: medians and ratios, whether results agree, bits, memory, share of the limit."""

import sys
import time
from typing import Any

import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import Case, Side, compared
from recsys.benchmarks.timing import alternate, summarize

__all__ = ["TOLERANCE", "apart", "limit_of", "measure", "peaks", "same_bits"]

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""How far apart two results may be, relative to their norm, to count as the same."""


def measure(
    case: Case, device: torch.device, seconds: float, limits: dict[str, float] | None
) -> dict[str, Any]:
    """Time one case; a rival that cannot run, or computes something else, is left out and says why.

    Args:
        case: ready to run.
        device: where its tensors lie.
        seconds: as in `timing.alternate`.
        limits: of `measure_limits`; None for no share of a limit.
    """
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
        rival, least = case.target
        ratio = entry["rivals"][rival]["ratio"]["median"]
        entry["target"] = {"rival": rival, "ratio": least, "met": ratio >= least}
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


def same_bits(side: Side, runs: int) -> bool:
    """Whether so many further runs give the bits of the first, NaN equal to NaN."""
    first = [x.clone() for x in _tensors(side())]
    for _ in range(runs):
        for before, now in zip(first, _tensors(side()), strict=True):
            if not torch.equal(_words(before), _words(now)):
                return False
    return True


def peaks(case: Case) -> dict[str, float]:
    """MiB that each side of a case on a GPU takes at most, beyond what was there before it was called."""
    found = {}
    for name, side in compared(case.sides).items():
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        try:
            side()
        except Exception:  # a rival that cannot run; `measure` says why
            continue
        found[name] = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    return found


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [x for x in result if x is not None]


def _words(x: Tensor) -> Tensor:
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.contiguous().view(integer[x.element_size()]) if x.is_floating_point() else x
