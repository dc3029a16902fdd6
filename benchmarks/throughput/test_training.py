"""A training step of each encoder's default preset: batch, loss, gradients, update."""

import pytest

from recsys.benchmarks.steps import Steps
from recsys.benchmarks.throughput.meter import Meter
from recsys.benchmarks.throughput.sizes import Sizes
from recsys.benchmarks.training import ENCODERS
from recsys.datasets.prepared.store import SequenceStore


@pytest.mark.parametrize("encoder", ENCODERS)
def test_training_step(encoder: str, store: SequenceStore, sizes: Sizes, meter: Meter) -> None:
    step = Steps(encoder, store, encoder={}, batch_events=sizes.step_events)
    weights = [p.detach().clone() for p in step.trainer.encoder.parameters()]
    meter(
        step,
        group=f"training step, {sizes.step_events:,} events, {sizes.items:,} items",
        events=sizes.step_events,
    )
    after = step.trainer.encoder.parameters()
    assert all(not a.equal(b) for a, b in zip(weights, after, strict=True) if a.ndim > 1)
