# mypy: disable-error-code="import-not-found,import-untyped"
"""RecBole's SASRec: its own data set, loader, model and ``Trainer._train_epoch``, cut into slices.

Runs in RecBole's environment. One event is supervised per prefix row (its data augmentation).
"""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from .protocol import Slice, Task, serve

NAME = "log"


class RecBoleSide:
    """RecBole with its prefix rows in memory."""

    def __init__(self, task: Task) -> None:
        import recbole
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_seed

        torch.set_num_threads(task.threads)
        logging.getLogger().setLevel(logging.ERROR)
        _write_inter(task.log, Path(NAME) / f"{NAME}.inter")
        config = Config(model="SASRec", dataset=NAME, config_dict=_settings(task))
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        self._loader, self._valid, self._test = data_preparation(config, dataset)
        model = get_model("SASRec")(config, self._loader._dataset).to("cpu")
        self._model = model
        self._trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
        self._config = config
        self._batches: Iterator[Any] = iter(())
        self.facts: dict[str, Any] = {
            "versions": {"recbole": recbole.__version__, "torch": torch.__version__},
            "parameters": sum(p.numel() for p in model.parameters()),
            "items": int(dataset.item_num) - 1,
            "training_events": len(self._loader._dataset),
            "batch_unit": "prefix rows",
        }

    def train(self, part: Slice, batch_size: int) -> None:
        """Run RecBole's epoch function on as many batches as fit in the slice."""
        if batch_size != self._config["train_batch_size"]:
            self._config["train_batch_size"] = batch_size
            self._batches = iter(())
            self._loader = type(self._loader)(
                self._config, self._loader._dataset, self._loader._sampler, shuffle=self._config["shuffle"]
            )
        total = self._trainer._train_epoch(_Until(self, part), 0)
        part.loss_sum = float(total)

    def next_batch(self) -> Any:
        """A batch of the current epoch, or of the next one when it is used up."""
        for batch in self._batches:
            return batch
        self._batches = iter(self._loader)
        return next(self._batches)


class _Until:
    """A train loader whose iteration ends with the slice, after the optimizer's step."""

    def __init__(self, side: RecBoleSide, part: Slice) -> None:
        self._side = side
        self._part = part

    def __iter__(self) -> Iterator[Any]:
        for _ in itertools.count():
            batch = self._side.next_batch()
            yield batch
            if self._part.count(len(batch)):
                return


def _settings(task: Task) -> dict[str, Any]:
    return {
        "data_path": ".",
        "checkpoint_dir": "saved",
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": task.max_length,
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "group_by": "user",
            "order": "TO",
            "mode": "full",
        },
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "n_layers": task.n_layers,
        "n_heads": task.n_heads,
        "hidden_size": task.d_model,
        "inner_size": task.d_ff,
        "hidden_dropout_prob": task.dropout,
        "attn_dropout_prob": task.dropout,
        "learning_rate": task.learning_rate,
        "train_batch_size": task.batch_size,
        "seed": task.seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }


def _write_inter(log: str, path: Path) -> None:
    """Write RecBole's tab-separated atomic file; the position stands for the time."""
    path.parent.mkdir(exist_ok=True)
    frame = pd.DataFrame(np.load(log), columns=["user_id:token", "item_id:token", "timestamp:float"])
    frame.to_csv(path, sep="\t", index=False)


if __name__ == "__main__":
    serve(RecBoleSide)
