"""Losses of batches that were learned from, on their way into the running epoch's mean."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from recsys.errors import RunError
from recsys.training.checkpoint import Progress
from recsys.training.processes import Processes

__all__ = ["LossSums"]


class LossSums:
    """Losses that stay on their device until asked for, so that a GPU is not held up every step.

    Args:
        processes: that share the batches. Groups are added whole, so that the batches that wait belong to
            processes 0 to W - 1 in turn.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._losses: list[Tensor] = []
        self.n_targets: list[float] = []
        """What the targets of each batch that waits count, in the order of places."""

    def __len__(self) -> int:
        return len(self.n_targets)

    def add(self, losses: Sequence[Tensor], counts: Sequence[float]) -> None:
        """Let the batches of a group wait.

        Args:
            losses: mean losses of those of this process, in order.
            counts: what the targets of each of all count: their weights, or their number.
        """
        self._losses += losses
        self.n_targets += counts

    def collect(self, progress: Progress, learning_rate: float) -> None:
        """Add what waits to the epoch's sums, in the order of places whoever had it.

        Raises:
            RunError: the loss is no longer finite.
        """
        own = [float(loss) for loss in self._losses]
        losses = self._processes.in_order(own, self._processes.owners(len(self)))
        for loss, count in zip(losses, self.n_targets, strict=True):
            progress.loss_sum += loss * count
            progress.n_targets += count
        self._losses, self.n_targets = [], []
        if not np.isfinite(progress.loss_sum):
            raise RunError(
                f"the loss is not finite in epoch {progress.epoch + 1}; lower training.learning_rate "
                f"(now {learning_rate}) or set training.gradient_clip"
            )
