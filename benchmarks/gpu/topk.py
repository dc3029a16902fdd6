"""Exact search and ranks among a million items: by batch and k beside torch, and step by step."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recsys.benchmarks.gpu.comparisons import as_task
from recsys.benchmarks.gpu.launches import profile
from recsys.benchmarks.gpu.stages import Scale, Task
from recsys.benchmarks.gpu.vectors import clusters
from recsys.benchmarks.kernels.case import Case, compared
from recsys.benchmarks.kernels.ranking import RIVAL, rank_case, search_case
from recsys.benchmarks.timing import alternate, summarize
from recsys.kernels.ranking import triton_top_k_launch as ours
from recsys.kernels.shared.launching import interpreting

__all__ = ["BATCHES", "cases", "steps", "tasks"]

ITEMS = 1_000_000
BATCHES = (64, 512, 4_096, 1, 8)
"""The first three are to be twice as fast as torch, the others as fast."""
RANKED = 4_096

_STEP_ROWS = 512
"""Rows whose steps are timed: about what the workspace holds."""


def tasks(scale: Scale) -> Iterator[Task]:
    """Searches for 100, then for 10; then ranks in the model's types."""
    for case, steps_of in _cases(scale):
        yield _task(case, scale, steps_of)


def cases(scale: Scale) -> Iterator[Case]:
    """The comparisons alone."""
    for case, _ in _cases(scale):
        yield case


def _cases(scale: Scale) -> Iterator[tuple[Case, Callable[[], dict[str, Any]]]]:
    items, batches = (1_300, (2,)) if scale.dry else (ITEMS, BATCHES)
    table, queries = clusters(items, max(batches), scale.device)
    for k in (1,) if scale.dry else (100, 10):
        for batch in batches:
            asked = queries[:batch]
            case = search_case(table, None, batch, k, asked)
            wanted = 2.0 if batch >= 64 else 1.0
            yield replace(case, target=(RIVAL, wanted)), _steps_of(asked, table, k, scale)
    del table, queries, asked, case
    for dtype in scale.dtypes:
        case = rank_case(8 if scale.dry else RANKED, items, dtype, scale.device)
        yield replace(case, target=("torch, all scores", 1.0)), dict


def _task(case: Case, scale: Scale, more: Callable[[], dict[str, Any]]) -> Task:
    def facts() -> dict[str, Any]:
        launches = profile(case.sides[case.ours], scale.device, calls=1 if scale.dry else 5)
        return {"wall": waited(compared(case.sides), scale), "launches": launches, **more()}

    return as_task(case, scale, facts, compiles=False)


def _steps_of(asked: Tensor, table: Tensor, k: int, scale: Scale) -> Callable[[], dict[str, Any]]:
    def facts() -> dict[str, Any]:
        if scale.device.type == "cpu" and not interpreting():
            return {}  # the steps are the GPU's
        return steps(asked[:_STEP_ROWS], table, k, scale)

    return facts


def waited(sides: dict[str, Callable[[], Any]], scale: Scale) -> dict[str, Any]:
    """Times by the clock of who waits for the answer, launches and all."""

    def until_there(side: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            side()
            if scale.device.type == "cuda":
                torch.cuda.synchronize()

        return run

    there = {name: until_there(side) for name, side in sides.items()}
    for side in there.values():
        side()
    cpu = torch.device("cpu")
    return summarize(alternate(there, device=cpu, seconds=scale.seconds, clock=time.perf_counter))


def steps(asked: Tensor, table: Tensor, k: int, scale: Scale) -> dict[str, Any]:
    """Time each step of a search apart, and say in how many rows the first prefilter proves nothing.

    Args:
        asked: (B, `WIDTH`) float32.
        table: (V, `WIDTH`) float32.
        k: answers.
        scale: of the stage.
    """
    catalog = ours.Catalog(None, None, len(table))
    precision, *_ = ours.precisions(asked.dtype, k, len(table))
    picked, calls = None, {}
    if precision is None:
        block = 8
    else:
        config = ours.prefilter_config(asked, precision)
        block = config.blocks["BLOCK_B"]
        bounds, _ = ours.bound_tiles(asked, table, catalog, None, precision, config)
        picked = bounds.topk(ours.picks_of(k), sorted=False)[1]
        calls["prefilter"] = lambda: ours.bound_tiles(asked, table, catalog, None, precision, config)
        calls["choice of tiles"] = lambda: bounds.topk(ours.picks_of(k), sorted=False)
    keys, _ = ours.score_tiles(asked, table, catalog, None, picked, block)
    calls["refine"] = lambda: ours.score_tiles(asked, table, catalog, None, picked, block)
    calls["merge"] = lambda: keys.topk(k)
    times = alternate(calls, device=scale.device, seconds=scale.seconds)
    found = ours.select(asked, table, k, None, catalog, precision)
    return {
        "steps_ms": {name: 1e3 * sorted(each)[len(each) // 2] for name, each in times.items()},
        "step_rows": len(asked),
        "rows_in_doubt": int(found.unsure.count_nonzero()),
    }
