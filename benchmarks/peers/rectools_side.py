# mypy: disable-error-code="import-not-found,import-untyped"
"""RecTools' SASRecModel: its own data preparator, loader and Lightning module, cut into slices.

Runs in RecTools' environment. All non-padding positions of a sequence are supervised.
"""

import warnings
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything

from .held_out import read_events
from .lightning_slices import UntilEnd
from .protocol import Slice, Task, serve

# Widths of the feed-forward layers over d_model, fixed in RecTools' code.
FEED_FORWARD = {"SASRecModel": 1, "BERT4RecModel": 4}


class RecToolsSide:
    """RecTools with its sequences in memory.

    Args:
        task: what to train.
        model: name of the class in ``rectools.models``.
    """

    def __init__(self, task: Task, model: str = "SASRecModel") -> None:
        import rectools
        import rectools.models

        torch.set_num_threads(task.threads)
        warnings.filterwarnings("ignore")
        seed_everything(task.seed)
        self._model = getattr(rectools.models, model)(
            n_factors=task.d_model,
            n_blocks=task.n_layers,
            n_heads=task.n_heads,
            session_max_len=task.max_length,
            dropout_rate=task.dropout,
            loss="softmax",
            lr=task.learning_rate,
            batch_size=task.batch_size,
        )
        width = task.d_model * FEED_FORWARD[model]
        if task.d_ff != width:
            raise ValueError(f"{model}'s feed-forward width is {width}, not {task.d_ff}")
        self._model._build_model_from_dataset(as_dataset(read_events(task.log, held_out=2)))
        self._loaders: dict[int, Any] = {}
        loader = self._loader(task.batch_size)
        # BERT4Rec supervises what it masks: about this share of an epoch's events.
        share = getattr(self._model, "mask_prob", 1.0)
        self.facts: dict[str, Any] = {
            "versions": {"rectools": rectools.VERSION, "torch": torch.__version__},
            "parameters": sum(p.numel() for p in self._model.torch_model.parameters()),
            "items": len(self._model.data_preparator.get_known_item_ids()),
            "training_events": round(share * sum(len(s) - 1 for s in loader.dataset.sessions)),
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


class _Until(UntilEnd, Callback):  # type: ignore[misc]
    """Counts the targets that are no padding."""

    def __init__(self, part: Slice) -> None:
        super().__init__(part, lambda batch: int((batch["y"] != 0).sum()))


def as_dataset(events: pd.DataFrame) -> Any:
    """RecTools' data set; the position stands for the time."""
    from rectools.dataset import Dataset

    frame = events.rename(columns={"position": "datetime"})
    return Dataset.construct(frame.assign(datetime=pd.to_datetime(frame["datetime"], unit="s"), weight=1.0))


if __name__ == "__main__":
    serve(RecToolsSide)
