"""Epochs of each encoder's default preset: seconds, events a second, memory."""

from collections.abc import Iterator
from typing import Any

from recsys.benchmarks.gpu.stages import Scale, Task
from recsys.benchmarks.steps import Steps
from recsys.benchmarks.training import ENCODERS, made_store, time_encoder
from recsys.datasets.prepared.store import SequenceStore

__all__ = ["tasks"]

USERS = 6_040
"""MovieLens 1M's, where no prepared dataset was taken along."""

LARGE = 16_384
"""Events that fill a GPU: smaller steps time launches."""


def tasks(scale: Scale) -> Iterator[Task]:
    """Every encoder on every prepared dataset that is there, with its own batches and with large ones."""
    for store in _stores(scale):
        for events in (128,) if scale.dry else (LARGE, None):
            for name in ENCODERS:
                yield _task(name, store, events, scale)


def _stores(scale: Scale) -> Iterator[SequenceStore]:
    if scale.dry:
        yield made_store(users=8, items=50)
        return
    found = sorted((scale.datasets or ()) and scale.datasets.glob("*/meta.json"))
    for path in found:
        yield SequenceStore.open(path.parent)
    if not found:
        yield made_store(users=USERS)


def _task(name: str, store: SequenceStore, events: int | None, scale: Scale) -> Task:
    small = {"d_model": 16, "n_layers": 1, "max_length": 16} if scale.dry else {}

    def warm() -> None:
        own = {} if events is None else {"batch_events": events}
        step = Steps(name, store, encoder=small, device=scale.device, **own)
        step()
        step()

    def measured() -> dict[str, Any]:
        epochs = 1 if scale.dry else 3
        entry = time_encoder(name, store, scale.device, epochs, events, small)
        return {"log": store.name, "log_events": store.n_events, **entry}

    size = "its own batches" if events is None else f"{events:,} events a step"
    return Task(f"{name} on {store.name}, {size}", warm, measured)
