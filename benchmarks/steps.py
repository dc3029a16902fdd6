"""Training runs that take one step when called, and steps of several timed in turn."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from recsys.benchmarks import timing
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import build_encoder, encoder_config, preset
from recsys.training.column_inputs import column_inputs
from recsys.training.config import TrainingConfig
from recsys.training.item_inputs import item_inputs
from recsys.training.loss_sums import LossSums
from recsys.training.processes import ALONE
from recsys.training.trainer import Trainer

__all__ = ["Steps", "alternate_steps"]


SAME = {"max_length": 200, "repeat_bias": 0}
"""Of runs whose losses are compared: no sampled loss trains a repeat bias."""


class Steps:
    """One training run of an encoder's default preset, in batches of 4,096 events unless told otherwise.

    Unless told otherwise it has windows of 200 and no repeat bias.

    Args:
        name: of the encoder.
        store: the data.
        encoder: settings of the encoder that differ.
        device: where it trains.
        training: settings of `TrainingConfig` that differ.
    """

    def __init__(
        self,
        name: str,
        store: SequenceStore,
        *,
        encoder: Mapping[str, object] = SAME,
        device: torch.device | str = "cpu",
        **training: object,
    ) -> None:
        chosen = preset(name, "tuned")
        config = TrainingConfig(**{**chosen.get("training", {}), "batch_events": 4096, **training})
        settings = encoder_config(name, {**chosen.get("encoder", {}), **encoder})
        model = build_encoder(
            name, store.n_items, settings, features=item_inputs(store), columns=column_inputs(store)
        )
        self.trainer = Trainer(model.to(device), store, config)
        model.train()
        # As `Trainer.run` does.
        for table in (model.item_embedding, model.scored_items):
            table.sparse = self.trainer._loss.plan.sampled
        self._plan = self.trainer._plan(0)
        self._step = 0

    def __call__(self) -> None:
        """Batch, loss, gradients, update."""
        prepared = self.trainer._prepare(self._plan, 0, self._step % self._plan.n_steps)
        self.trainer._optimize([prepared], [prepared.task.n_targets], LossSums(ALONE), 0.0)
        self._step += 1


def alternate_steps(sides: Mapping[str, Steps], rounds: int) -> dict[str, Any]:
    """Time steps of all sides in turn, after two of each: `timing.summarize` of processor time on a CPU."""
    for step in sides.values():
        step()
        step()
    times = timing.alternate(
        sides,
        device=torch.device("cpu"),
        seconds=0.0,
        least=rounds,
        most=rounds,
        clock=time.process_time,
    )
    return timing.summarize(times)
