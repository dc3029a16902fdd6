"""Our encoders trained whole: a preset, the ``Trainer`` with its validation after each epoch, our evaluation.

The trainer averages weights where the preset says so; the averaged ones are measured, and nothing of that is
timed as training.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

import recsys
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.registry import build_encoder
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.kernels.shared.vector.tiles import tiles_available
from recsys.recommender import Recommender
from recsys.training.checkpoint import Progress
from recsys.training.config import SELECTION_METRIC
from recsys.training.estimate import Estimate
from recsys.training.losses import plan_loss
from recsys.training.reporting import SilentReporter
from recsys.training.trainer import Trainer

from .ours import open_log
from .pace import Pace, serve_quality
from .protocol import OurTask, Slice

CUT = 10
# Whether a side has stopped improving is decided outside, for all sides alike.
ENDLESS = 1_000_000


class OurQualitySide:
    """The engine with its store in memory.

    Args:
        task: which encoder and preset.
        encoder_options, training_options: fields that differ from the preset.
    """

    def __init__(
        self,
        task: OurTask,
        encoder_options: Mapping[str, object] | None = None,
        training_options: Mapping[str, object] | None = None,
    ) -> None:
        torch.set_num_threads(task.threads)
        self._store = open_log(task.log)
        settings, training = Recommender(
            task.encoder,
            preset=task.preset,
            seed=task.seed,
            encoder_options=encoder_options,
            training_options={**(training_options or {}), "patience": ENDLESS},
        ).configs()
        if plan_loss(training, self._store.n_items, torch.device("cpu")).sampled:
            # As `Recommender.fit` does.
            settings = dataclasses.replace(settings, repeat_bias=0)
        self._score = 0.0
        self._encoder = build_encoder(task.encoder, self._store.n_items, settings, seed=training.seed)
        self._reporter = _Told()
        self._trainer = Trainer(
            self._encoder, self._store, training, validate=self._validate, reporter=self._reporter
        )
        store = self._store
        self.facts: dict[str, Any] = {
            "versions": {"recsys": recsys.__version__, "torch": torch.__version__},
            "parameters": sum(p.numel() for p in self._encoder.parameters()),
            "items": store.n_items,
            "training_events": int((store.valid_start - store.offsets[:-1] - 1).clip(min=0).sum()),
            "batch_unit": "events",
            "matrix_tiles": tiles_available(),
            "settings": {
                "preset": task.preset,
                "encoder": dataclasses.asdict(settings),
                "training": dataclasses.asdict(training),
            },
        }

    def train(self, part: Slice, batch_size: int) -> None:
        """Run the trainer to its last epoch; the batch size is the preset's."""
        assert isinstance(part, Pace)
        # A pause is due when the trainer validates.
        part.budget_s = math.inf
        self._reporter.pace = part
        self._trainer.run()

    def measure(self, split: str, path: str) -> dict[str, Any]:
        """Metrics by rule, by the call that `Recommender` validates with; nothing is written."""
        result = evaluate_hidden(
            hidden_function(self._encoder, self._store),
            self._encoder.item_vectors(),
            self._store,
            bias_fn=bias_function(self._encoder, self._store),
            split=split,  # type: ignore[arg-type]
            ks=(CUT,),
            progress=False,
            lists=False,
            resamples=0,
        )
        if split == "valid":
            self._score = result.metrics[SELECTION_METRIC]
        return {"metrics": {"kept": result.metrics_seen_kept, "removed": result.metrics_seen_removed}}

    def _validate(self, encoder: SequenceEncoder) -> Mapping[str, float]:
        """Called by the trainer after an epoch, with the averaged weights in place."""
        self._reporter.pace.pause()  # in which the model is measured
        return {SELECTION_METRIC: self._score}


class _Told(SilentReporter):
    """Passes the trainer's counts on."""

    pace: Pace

    def __init__(self) -> None:
        self._seen = (0, 0, 0.0)

    def started(self, estimate: Estimate, progress: Progress, epochs: int) -> None:
        """The trainer's estimate of time and memory, which compiles kernels, belongs to no step."""
        self.pace.restart_clock()

    def stepped(self, progress: Progress, n_steps: int) -> None:
        """Count since the last report."""
        step, events, loss = self._seen
        new = int(progress.n_targets) - events
        mean = (progress.loss_sum - loss) / max(new, 1)
        steps = progress.step - step
        done = progress.step == n_steps
        self._seen = (0, 0, 0.0) if done else (progress.step, int(progress.n_targets), progress.loss_sum)
        self.pace.count(new, mean * steps, steps=steps)


if __name__ == "__main__":
    serve_quality(lambda task: OurQualitySide(OurTask(**task)))
