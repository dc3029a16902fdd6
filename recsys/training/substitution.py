"""Input items replaced by their neighbours (SRA-CL's item half, without its contrast): the targets stay."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.datasets.prepared.store import SequenceStore
from recsys.training.config import TrainingConfig
from recsys.training.item_neighbours import item_neighbours
from recsys.training.objectives import Task

__all__ = ["Substitution"]


class Substitution:
    """Replaces a share of a batch's input items.

    Args:
        share: of the input events, each by itself.
        neighbours: (V, k) int32 nearest items of each, -1 where there are fewer; None where none is replaced.
    """

    def __init__(self, share: float, neighbours: NDArray[np.int32] | None) -> None:
        self.share, self.neighbours = share, neighbours
        if neighbours is not None:
            self._counts = np.count_nonzero(neighbours >= 0, axis=1)

    @classmethod
    def of(cls, store: SequenceStore, config: TrainingConfig) -> "Substitution":
        """As a training asks for it.

        Raises:
            ConfigError: neighbours by features that the log lacks.
        """
        if not config.substitute:
            return cls(0.0, None)
        return cls(config.substitute, item_neighbours(store, config.substitute_by))

    def __call__(self, task: Task, seeds: np.random.SeedSequence) -> Task:
        """The task with other inputs; its targets, and where they stood in the windows, are as they were.

        Args:
            task: of a batch on the host.
            seeds: of this batch alone.
        """
        if self.neighbours is None:
            return task
        rng = np.random.default_rng(seeds)
        items = task.batch.items.numpy().copy()
        # A hidden item of Cloze has the number past the last, and stays hidden.
        chosen = np.flatnonzero((rng.random(len(items)) < self.share) & (items < len(self.neighbours)))
        chosen = chosen[self._counts[items[chosen]] > 0]
        of = items[chosen]
        items[chosen] = self.neighbours[of, (rng.random(len(of)) * self._counts[of]).astype(np.int64)]
        return replace(task, batch=task.batch.with_items(torch.from_numpy(items)))
