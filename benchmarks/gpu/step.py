"""One training step of each encoder by launch: how many, how long, how much of it the device waits."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from recsys.benchmarks.gpu.launches import profile
from recsys.benchmarks.gpu.stages import Scale, Task
from recsys.benchmarks.steps import Steps
from recsys.benchmarks.timing import spread
from recsys.benchmarks.training import ENCODERS, made_store
from recsys.datasets.prepared.store import SequenceStore

__all__ = ["tasks"]

EVENTS = (4_096, 16_384)
USERS = 2_000
STEPS = 20
PROFILED = 5
_TINY = {"d_model": 16, "n_layers": 1, "max_length": 16}


def tasks(scale: Scale) -> Iterator[Task]:
    """Every encoder's default preset, at two sizes of a batch."""
    store = made_store(users=8, items=50) if scale.dry else made_store(users=USERS)
    for events in (128,) if scale.dry else EVENTS:
        for name in ENCODERS:
            yield _task(name, store, events, scale)


def _task(name: str, store: SequenceStore, events: int, scale: Scale) -> Task:
    def steps() -> Steps:
        made = Steps(
            name, store, encoder=_TINY if scale.dry else {}, device=scale.device, batch_events=events
        )
        made()
        made()
        return made

    def measured() -> dict[str, Any]:
        step = steps()
        waits = scale.device.type == "cuda"
        if waits:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        each = []
        for _ in range(2 if scale.dry else STEPS):
            started = time.perf_counter()
            step()
            if waits:
                torch.cuda.synchronize()
            each.append(1e3 * (time.perf_counter() - started))
        entry: dict[str, Any] = {"encoder": name, "batch_events": events, "step_ms": spread(each)}
        if waits:
            entry["peak_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        return entry | {"launches": profile(step, scale.device, calls=1 if scale.dry else PROFILED)}

    return Task(f"{name}, {events:,} events", steps, measured)
