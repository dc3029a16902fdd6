# mypy: disable-error-code="import-not-found,import-untyped"
"""RecTools' evaluation: its `TorchRanker`, its table of lists, its `calc_metrics`.

Runs in RecTools' environment. Lists of the largest k are made of the given states and item vectors as its
transformer models make them, turned into its table of recommendations and measured.
"""

from typing import Any

import numpy as np
import pandas as pd
import rectools
import torch
from rectools import Columns
from rectools.metrics import MRR, NDCG, HitRate, Recall, calc_metrics
from rectools.models.rank import Distance, TorchRanker
from scipy import sparse

from .protocol import EvaluationTask, serve_evaluation


class RecToolsSide:
    """RecTools' ranker over the given vectors, and its metrics."""

    def __init__(self, task: EvaluationTask) -> None:
        torch.set_num_threads(task.threads)
        states, items, log = np.load(task.states), np.load(task.items), np.load(task.log)
        last = np.append(np.flatnonzero(np.diff(log[:, 0])), len(log) - 1)
        history = np.delete(log, last, axis=0)
        self._targets = pd.DataFrame({Columns.User: log[last, 0] - 1, Columns.Item: log[last, 1] - 1})
        seen = sparse.csr_matrix(
            (np.ones(len(history), dtype=np.float32), (history[:, 0] - 1, history[:, 1] - 1)),
            shape=(len(states), len(items)),
        )
        # The target stays a candidate on all sides.
        seen[log[last, 0] - 1, log[last, 1] - 1] = 0
        seen.eliminate_zeros()
        self._seen = {"kept": None, "removed": seen}
        self._users = np.arange(len(states))
        self._k = max(task.ks)
        self._ranker = TorchRanker(
            Distance.DOT,
            "cpu",
            subjects_factors=torch.from_numpy(states),
            objects_factors=torch.from_numpy(items),
            batch_size=task.batch_users,
        )
        kinds = {"hr": HitRate, "recall": Recall, "mrr": MRR}
        self._metrics: dict[str, Any] = {f"{n}@{k}": kind(k=k) for n, kind in kinds.items() for k in task.ks}
        self._metrics |= {f"ndcg@{k}": NDCG(k=k, divide_by_achievable=True) for k in task.ks}
        self.facts: dict[str, Any] = {
            "versions": {"rectools": rectools.VERSION, "torch": torch.__version__},
            "batch_users": task.batch_users,
        }

    def evaluate(self, seen: str) -> dict[str, dict[str, float]]:
        """Rank, make the table, measure; once per rule."""
        found = {}
        for rule in ("kept", "removed") if seen == "both" else (seen,):
            users, items, scores = self._ranker.rank(
                self._users, k=self._k, filter_pairs_csr=self._seen[rule]
            )
            table = pd.DataFrame({Columns.User: users, Columns.Item: items, Columns.Score: scores})
            table[Columns.Rank] = table.groupby(Columns.User, sort=False).cumcount() + 1
            values = calc_metrics(self._metrics, table, self._targets)
            found[rule] = {name: float(value) for name, value in values.items()}
        return found


if __name__ == "__main__":
    serve_evaluation(RecToolsSide)
