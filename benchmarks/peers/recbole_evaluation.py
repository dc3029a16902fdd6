# mypy: disable-error-code="import-not-found,import-untyped,misc"
"""RecBole's evaluation: its `Trainer.evaluate` with its full-sort loader, Collector and Evaluator.

Runs in RecBole's environment. The model only multiplies given states and item vectors, as RecBole's SASRec
does in `full_sort_predict`. Seen items "removed" is RecBole's way with general recommenders, "kept" its way
with sequential ones.
"""

import logging
from typing import Any

import numpy as np
import torch
from recbole import __version__ as version
from recbole.config import Config
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer

from .protocol import EvaluationTask, serve_evaluation

METRICS = {"hit": "hr", "recall": "recall", "mrr": "mrr", "ndcg": "ndcg"}


class RecBoleSide:
    """RecBole's trainer around the given states."""

    def __init__(self, task: EvaluationTask) -> None:
        torch.set_num_threads(task.threads)
        logging.getLogger().setLevel(logging.ERROR)
        states, items, log = np.load(task.states), np.load(task.items), np.load(task.log)
        config = Config(model="BPR", dataset="given", config_dict=_settings(task, len(items) + 1))
        self._trainer = Trainer(config, _Given(states, items))
        self._loaders = {seen: _Loader(config, log, len(items) + 1, seen) for seen in ("kept", "removed")}
        self.facts: dict[str, Any] = {
            "versions": {"recbole": version, "torch": torch.__version__},
            "batch_users": self._loaders["kept"].step,
        }

    def evaluate(self, seen: str) -> dict[str, dict[str, float]]:
        """One call of `Trainer.evaluate` per rule."""
        found = {}
        for rule in ("kept", "removed") if seen == "both" else (seen,):
            result = self._trainer.evaluate(self._loaders[rule], load_best_model=False)
            found[rule] = {
                f"{METRICS[name.partition('@')[0]]}@{name.partition('@')[2]}": float(value)
                for name, value in result.items()
            }
        return found


class _Given(torch.nn.Module):
    """States and item vectors, the first of each for RecBole's padding id 0."""

    def __init__(self, states: np.ndarray[Any, Any], items: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.states = torch.nn.Parameter(torch.from_numpy(np.pad(states, ((1, 0), (0, 0)))))
        self.items = torch.nn.Parameter(torch.from_numpy(np.pad(items, ((1, 0), (0, 0)))))

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Score all items for the users asked for."""
        return torch.matmul(self.states[interaction["user_id"]], self.items.transpose(0, 1))

    def other_parameter(self) -> None:
        """RecBole asks when it saves a model."""


class _Catalog:
    """What `Trainer.evaluate` asks a data set for."""

    def __init__(self, items: int) -> None:
        self.item_num = items

    def get_item_feature(self) -> Interaction:
        """All item ids."""
        return Interaction({"item_id": torch.arange(self.item_num)})


class _Loader(FullSortEvalDataLoader):
    """RecBole's loader with its tables filled from the log instead of a data set of RecBole's."""

    def __init__(self, config: Any, log: np.ndarray[Any, Any], items: int, seen: str) -> None:
        self.logger = logging.getLogger()
        self.uid_field, self.iid_field = "user_id", "item_id"
        self.is_sequential = False
        ends = np.append(np.flatnonzero(np.diff(log[:, 0])), len(log) - 1)
        starts = np.append(0, ends[:-1] + 1)
        users = len(ends) + 1
        self.uid_list = torch.arange(1, users)
        self.uid2items_num = np.ones(users, dtype=np.int64)
        self.uid2positive_item = np.array([None] * users)
        self.uid2history_item = np.array([None] * users)
        for user, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
            target = int(log[end, 1])
            self.uid2positive_item[user] = torch.tensor([target])
            self.uid2history_item[user] = torch.tensor(sorted(set(log[start:end, 1].tolist()) - {target}))
        self.user_df = Interaction({"user_id": self.uid_list})
        self.sample_size = len(self.uid_list)
        self._seen = seen
        self._targets = torch.from_numpy(log[ends, 1])
        AbstractDataLoader.__init__(self, config, _Catalog(items), None)
        self.is_sequential = False

    def collate_fn(self, index: list[int]) -> Any:
        """RecBole's batch; with seen items kept, as its branch for sequential models makes it."""
        if self._seen == "removed":
            return super().collate_fn(index)
        places = np.array(index)
        return self.user_df[places], None, torch.arange(len(places)), self._targets[places]


def _settings(task: EvaluationTask, items: int) -> dict[str, Any]:
    return {
        "data_path": ".",
        "checkpoint_dir": "saved",
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
        "metrics": ["Hit", "Recall", "MRR", "NDCG"],
        "topk": list(task.ks),
        "valid_metric": "MRR@10",
        "metric_decimal_place": 12,
        # RecBole counts a batch of its general loader in scores.
        "eval_batch_size": task.batch_users * items,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }


if __name__ == "__main__":
    serve_evaluation(RecBoleSide)
