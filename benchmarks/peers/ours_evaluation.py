"""Our evaluation: `evaluate_hidden` on a prepared log, without intervals and top lists, which peers lack.

It ranks with seen items kept and removed in one pass, whatever is asked for, and ranks by popularity besides.
"""

from typing import Any

import numpy as np
import polars as pl
import torch

import recsys
from recsys.datasets.preparing.prepare import prepare
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.kernels.shared.vector.tiles import tiles_available

from .protocol import EvaluationTask, serve_evaluation


class OurSide:
    """The engine with its store in memory."""

    def __init__(self, task: EvaluationTask) -> None:
        torch.set_num_threads(task.threads)
        frame = pl.DataFrame(np.load(task.log), schema=["user_id", "item_id", "pos"])
        self._store = prepare(frame, "store", timestamp_column="pos", time_unit="order", overwrite=True)
        self._states = torch.from_numpy(np.load(task.states)[_places("users", "user_id")])
        self._items = torch.from_numpy(np.load(task.items)[_places("items", "item_id")])
        self._task = task
        self.facts: dict[str, Any] = {
            "versions": {"recsys": recsys.__version__, "torch": torch.__version__},
            "batch_users": task.batch_users,
            "matrix_tiles": tiles_available(),
        }

    def evaluate(self, seen: str) -> dict[str, dict[str, float]]:
        """Evaluate; both rules come out of one pass."""
        result = evaluate_hidden(
            lambda rows, targets: self._states[torch.from_numpy(targets.user[rows])],
            self._items,
            self._store,
            ks=self._task.ks,
            batch_rows=self._task.batch_users,
            lists=False,
            resamples=0,
            progress=False,
        )
        return {"kept": result.metrics_seen_kept, "removed": result.metrics_seen_removed}


def _places(vocabulary: str, column: str) -> np.ndarray[Any, Any]:
    """The log's ids from 0, in the order in which the store counts them."""
    return pl.read_parquet(f"store/{vocabulary}.parquet", glob=False)[column].cast(pl.Int64).to_numpy() - 1


if __name__ == "__main__":
    serve_evaluation(OurSide)
