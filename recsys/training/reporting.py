"""What a person sees of a training run: a line before, a bar or lines during, a line after."""

import sys
from typing import Any

from recsys.training.checkpoint import Progress
from recsys.training.config import SELECTION_METRIC
from recsys.training.estimate import Estimate


class SilentReporter:
    """Says nothing; the base of those that do."""

    def explained(self, line: str) -> None:
        """What was chosen for this run, and why."""

    def started(self, estimate: Estimate, progress: Progress, epochs: int) -> None:
        """Training is about to start or go on."""

    def stepped(self, progress: Progress, n_steps: int) -> None:
        """Some steps of an epoch are done."""

    def epoch_ended(self, record: dict[str, Any], progress: Progress) -> None:
        """An epoch is done, and evaluated if it was due."""

    def finished(self, progress: Progress) -> None:
        """Training has ended."""

    def closed(self) -> None:
        """Training has ended or was broken off; called in any case."""


class ConsoleReporter(SilentReporter):
    """Writes to standard error: a progress bar on a terminal, one line per evaluation elsewhere.

    Args:
        select: name of the validation metric by which weights are kept.
    """

    def __init__(self, select: str = SELECTION_METRIC) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._select = select
        self._bar: Any = None
        self._task: Any = None
        self._epochs = 0

    def explained(self, line: str) -> None:
        """Print the line."""
        self._say(line)

    def started(self, estimate: Estimate, progress: Progress, epochs: int) -> None:
        """Print the estimate and, on a terminal, start the bar."""
        self._epochs = epochs
        self._say(f"Training: {estimate.line()}, at most {epochs} epochs")
        if self._console.is_terminal:
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("epoch 1", total=1.0)

    def stepped(self, progress: Progress, n_steps: int) -> None:
        """Move the bar on."""
        if self._bar is not None:
            best = "" if progress.best is None else f", best {self._select} {progress.best:.4f}"
            loss = progress.loss_sum / (progress.n_targets or 1)
            description = f"epoch {progress.epoch + 1}/{self._epochs}, loss {loss:.3f}{best}"
            self._bar.update(self._task, completed=progress.step / n_steps, description=description)

    def epoch_ended(self, record: dict[str, Any], progress: Progress) -> None:
        """Print each better evaluation, and every tenth epoch's."""
        if "valid" in record and (progress.best_epoch == progress.epoch or progress.epoch % 10 == 0):
            valid = record["valid"]
            star = " *" if progress.best_epoch == progress.epoch else ""
            shown = dict.fromkeys(("hr@10", "ndcg@10", self._select))
            metrics = [f"loss {record['validation_loss']:.4f}"] if "validation_loss" in record else []
            metrics += [f"{name} {valid[name]:.4f}" for name in shown]
            self._say(
                f"epoch {record['epoch']:>3}  loss {record['loss']:.4f}  valid {'  '.join(metrics)}  "
                f"{record['seconds']:.1f} s  {record['events_per_second']:,.0f} events/s{star}"
            )

    def finished(self, progress: Progress) -> None:
        """Take the bar away and say what was reached."""
        self.closed()
        seconds = sum(r["seconds"] + r.get("validation_seconds", 0.0) for r in progress.history)
        best = (
            ""
            if progress.best is None
            else f", best {self._select} {progress.best:.4f} in epoch {progress.best_epoch}"
        )
        self._say(f"Trained {progress.epoch} epochs in {seconds:.0f} s{best}")
        sys.stderr.flush()

    def closed(self) -> None:
        """Take the bar away, so that the cursor is back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, line: str) -> None:
        # Names of the data are no markup.
        self._console.print(line, markup=False)
