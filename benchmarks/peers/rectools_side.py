# mypy: disable-error-code="import-not-found,import-untyped"
"""RecTools' SASRecModel: its own data preparator, loader and Lightning module, cut into slices.

Runs in RecTools' environment. All non-padding positions of a sequence are supervised.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from .protocol import Slice, Task, serve


class RecToolsSide:
    """RecTools with its sequences in memory."""

    def __init__(self, task: Task) -> None:
        import rectools
        from rectools.dataset import Dataset
        from rectools.models import SASRecModel

        torch.set_num_threads(task.threads)
        warnings.filterwarnings("ignore")
        seed_everything(task.seed)
        self._model = SASRecModel(
            n_factors=task.d_model,
            n_blocks=task.n_layers,
            n_heads=task.n_heads,
            session_max_len=task.max_length,
            dropout_rate=task.dropout,
            loss="softmax",
            lr=task.learning_rate,
            batch_size=task.batch_size,
        )
        if task.d_ff != task.d_model:
            raise ValueError(
                f"SASRecModel's feed-forward width is n_factors = {task.d_model}, not {task.d_ff}"
            )
        frame = read_training_events(task.log)
        frame["datetime"] = pd.to_datetime(frame.pop("position"), unit="s")
        frame["weight"] = 1.0
        self._model._build_model_from_dataset(Dataset.construct(frame))
        self._loaders: dict[int, Any] = {}
        loader = self._loader(task.batch_size)
        self.facts: dict[str, Any] = {
            "versions": {"rectools": rectools.VERSION, "torch": torch.__version__},
            "parameters": sum(p.numel() for p in self._model.torch_model.parameters()),
            "items": int(self._model.data_preparator.item_id_map.size) - 1,
            "training_events": sum(len(s) - 1 for s in loader.dataset.sessions),
            "batch_unit": "sequences",
        }

    def train(self, part: Slice, batch_size: int) -> None:
        """Fit with the trainer that SASRecModel makes for itself, stopped by a callback."""
        trainer = Trainer(
            max_epochs=-1,
            callbacks=[_Until(part)],
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            devices=1,
            accelerator="cpu",
        )
        self._model.lightning_model.train()
        trainer.fit(self._model.lightning_model, self._loader(batch_size))

    def _loader(self, batch_size: int) -> Any:
        if batch_size not in self._loaders:
            self._model.data_preparator.batch_size = batch_size
            self._loaders[batch_size] = self._model.data_preparator.get_dataloader_train()
        return self._loaders[batch_size]


class _Until(Callback):  # type: ignore[misc]
    """Counts the non-padding targets of each step and stops with the slice."""

    def __init__(self, part: Slice) -> None:
        self._part = part
        self._fresh = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock when Lightning has set itself up."""
        if self._fresh:
            self._fresh = False
            self._part.restart_clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after this step when the time is used up."""
        if self._part.count(int((batch["y"] != 0).sum()), float(outputs["loss"])):
            trainer.should_stop = True


def read_training_events(log: str) -> pd.DataFrame:
    """The log without the last two events of each user, in file order."""
    frame = pd.DataFrame(np.load(log), columns=["user_id", "item_id", "position"])
    last = frame.groupby("user_id")["position"].transform("max")
    return frame[frame["position"] <= last - 2].reset_index(drop=True)


if __name__ == "__main__":
    serve(RecToolsSide)
