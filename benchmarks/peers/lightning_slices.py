"""How a training by Lightning is cut into slices, in a peer's environment; by whichever package it has it."""

from collections.abc import Callable
from typing import Any

from .protocol import Slice


class UntilEnd:
    """Counts the targets of each step and stops with the slice; to be joined with the package's `Callback`.

    Args:
        part: the slice.
        targets: of a batch.
    """

    def __init__(self, part: Slice, targets: Callable[[Any], int]) -> None:
        self._part, self._targets = part, targets
        self._fresh = True

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock when Lightning has set itself up."""
        if self._fresh:
            self._fresh = False
            self._part.restart_clock()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after this step when the time is used up."""
        if self._part.count(self._targets(batch), float(outputs["loss"])):
            trainer.should_stop = True
