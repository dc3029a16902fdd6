"""Our SASRec or BERT4Rec: the engine's own store, encoder and ``Trainer``, interrupted when a slice is over.

SASRec supervises all events of a window but its first, BERT4Rec those that are masked; histories longer than
``max_length`` are cut into windows.
"""

from typing import Any

import numpy as np
import polars as pl
import torch

import recsys
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.training.checkpoint import Progress
from recsys.training.config import TrainingConfig
from recsys.training.estimate import Estimate
from recsys.training.reporting import SilentReporter
from recsys.training.trainer import Trainer

from .protocol import Slice, Task, serve

# RecTools' BERT4Rec: as many masks, none of them apart for the last event, and no layer at the end.
LIKE_PEERS: dict[str, dict[str, Any]] = {
    "bert4rec": {"mask_probability": 0.15, "last_mask_probability": 0.0, "ends": "plain"}
}


class OurSide:
    """The engine with its store in memory."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(task.threads)
        store = open_log(task.log)
        config = encoder_config(
            task.encoder,
            {
                **LIKE_PEERS.get(task.encoder, {}),
                "d_model": task.d_model,
                "n_layers": task.n_layers,
                "n_heads": task.n_heads,
                "d_ff": task.d_ff,
                "max_length": task.max_length,
                "dropout": task.dropout,
                "attention_dropout": task.dropout,
                "block": task.block,
                "positions": task.positions,
            },
        )
        # The peers neither clip gradients nor warm up; so neither do we here.
        training = TrainingConfig(
            seed=task.seed,
            epochs=1_000_000,
            batch_events=task.batch_size,
            learning_rate=task.learning_rate,
            warmup_steps=0,
            gradient_clip=0.0,
        )
        encoder = build_encoder(task.encoder, store.n_items, config, seed=task.seed)
        self._reporter = _Until()
        self._trainer = Trainer(encoder, store, training, reporter=self._reporter)
        self.facts: dict[str, Any] = {
            "versions": {"recsys": recsys.__version__, "torch": torch.__version__},
            "parameters": sum(p.numel() for p in encoder.parameters()),
            "items": store.n_items,
            "training_events": int((store.valid_start - store.offsets[:-1] - 1).clip(min=0).sum()),
            "batch_unit": "events",
        }

    def train(self, part: Slice, batch_size: int) -> None:
        """Run the trainer, which goes on from where it was interrupted, until the slice is over."""
        if batch_size != self._trainer.config.batch_events:
            raise ValueError("the trainer fixes its batch size when it is made")
        self._reporter.begin(part)
        try:
            self._trainer.run()
        except _SliceOver:
            return


class _SliceOver(Exception):
    """Leaves the trainer's loop; its progress stays valid."""


class _Until(SilentReporter):
    """Counts what the trainer reports, every few steps, and interrupts it at the end of the slice."""

    def __init__(self) -> None:
        self._part = Slice(budget_s=0)
        self._seen = (0, 0, 0.0)

    def begin(self, part: Slice) -> None:
        """Count into another slice."""
        self._part = part

    def started(self, estimate: Estimate, progress: Progress, epochs: int) -> None:
        """Start the clock: the trainer's estimate of time and memory belongs to no step."""
        self._part.restart_clock()

    def stepped(self, progress: Progress, n_steps: int) -> None:
        """Count the steps since the last report."""
        step, events, loss = self._seen
        self._seen = (progress.step, int(progress.n_targets), progress.loss_sum)
        new_steps, new_events = progress.step - step, int(progress.n_targets) - events
        loss = (progress.loss_sum - loss) / new_events * new_steps
        over = self._part.count(new_events, loss, steps=new_steps)
        if progress.step == n_steps:
            self._seen = (0, 0, 0.0)
        elif over:
            raise _SliceOver

    def epoch_ended(self, record: dict[str, Any], progress: Progress) -> None:
        """Interrupt between epochs too."""
        if self._part.steps and self._part.seconds >= self._part.budget_s:
            raise _SliceOver


def open_log(log: str) -> SequenceStore:
    """The log as a prepared dataset in this side's folder, with the leave-one-out split."""
    frame = pl.DataFrame(np.load(log), schema=["user_id", "item_id", "pos"])
    return prepare(frame, "store", timestamp_column="pos", time_unit="order", overwrite=True)


if __name__ == "__main__":
    serve(OurSide)
