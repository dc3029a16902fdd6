"""Being told of a training run: a protocol of three methods, for loggers and for one's own code."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recsys.config import to_dict
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.registry import encoder_name
from recsys.errors import ArgumentError
from recsys.training.checkpoint import Progress
from recsys.training.config import TrainingConfig
from recsys.training.estimate import Estimate
from recsys.training.reporting import SilentReporter

__all__ = ["Callback", "check_callbacks", "run_settings", "told"]

_METHODS = ("on_fit_start", "on_epoch_end", "on_fit_end")


class Callback:
    """Told of a training run; a subclass overrides what it needs.

    What a method raises ends the training. It changes nothing of the run: records are copies.
    """

    def on_fit_start(self, config: Mapping[str, Any]) -> None:
        """Training is about to start or to go on.

        Args:
            config: ``model``, ``preset``, ``dataset``, ``users`` and ``items``, and every setting under
                ``encoder`` and ``training``.
        """

    def on_epoch_end(self, record: Mapping[str, Any]) -> None:
        """An epoch is done.

        Args:
            record: as in ``metrics.jsonl``: ``epoch`` (from 1), ``loss``, ``seconds``, ``events_per_second``;
                where it was validated also ``valid`` (metrics by name), ``validation_seconds`` and, with the
                full softmax, ``validation_loss``.
        """

    def on_fit_end(self, result: Mapping[str, Any] | None) -> None:
        """Training has ended.

        Args:
            result: ``epochs``, ``best`` (validation metric), ``best_epoch``, ``stopped_early`` and
                ``seconds``; None where it failed or was interrupted.
        """


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Refuse what cannot be told of a run.

    Raises:
        ArgumentError: not a list, or an entry lacks a method of :class:`Callback`.
    """
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Sequence):
        raise ArgumentError("callbacks must be a list, for example [TensorBoardLogger('logs')]")
    for callback in callbacks:
        lacking = [name for name in _METHODS if not callable(getattr(callback, name, None))]
        if lacking or isinstance(callback, type):
            what = callback.__name__ if isinstance(callback, type) else type(callback).__name__
            why = "is a class: pass an instance" if isinstance(callback, type) else f"has no {lacking[0]}"
            raise ArgumentError(f"callback {what} {why}; recsys.training.callbacks.Callback has all methods")


def run_settings(
    encoder: SequenceEncoder, store: SequenceStore, training: TrainingConfig, *, preset: str
) -> dict[str, Any]:
    """What `on_fit_start` is told of a run."""
    return {
        "model": encoder_name(encoder),
        "preset": preset,
        "dataset": store.name,
        "users": store.n_users,
        "items": store.n_items,
        "encoder": to_dict(encoder.config),
        "training": to_dict(training),
    }


@contextlib.contextmanager
def told(
    callbacks: Sequence[Callback], config: Mapping[str, Any], beside: SilentReporter
) -> Iterator[SilentReporter]:
    """A reporter for the trainer by which callbacks hear of a run from its start to its end.

    Args:
        callbacks: whom to tell.
        config: what `on_fit_start` is told.
        beside: told everything as well.
    """
    reporter = _Telling(callbacks, beside)
    for callback in callbacks:
        callback.on_fit_start(config)
    try:
        yield reporter
    except BaseException:
        for callback in callbacks:
            callback.on_fit_end(None)
        raise
    for callback in callbacks:
        callback.on_fit_end(reporter.result)


class _Telling(SilentReporter):
    def __init__(self, callbacks: Sequence[Callback], beside: SilentReporter) -> None:
        self._callbacks = callbacks
        self._beside = beside
        self.result: dict[str, Any] = {}

    def explained(self, line: str) -> None:
        self._beside.explained(line)

    def started(self, estimate: Estimate, progress: Progress, epochs: int) -> None:
        self._beside.started(estimate, progress, epochs)

    def stepped(self, progress: Progress, n_steps: int) -> None:
        self._beside.stepped(progress, n_steps)

    def epoch_ended(self, record: dict[str, Any], progress: Progress) -> None:
        self._beside.epoch_ended(record, progress)
        for callback in self._callbacks:
            copy = {k: dict(v) if isinstance(v, Mapping) else v for k, v in record.items()}
            callback.on_epoch_end(copy)

    def finished(self, progress: Progress) -> None:
        self._beside.finished(progress)
        self.result = {
            "epochs": progress.epoch,
            "best": progress.best,
            "best_epoch": progress.best_epoch or None,
            "stopped_early": progress.stopped,
            "seconds": sum(r["seconds"] + r.get("validation_seconds", 0.0) for r in progress.history),
        }

    def closed(self) -> None:
        self._beside.closed()
