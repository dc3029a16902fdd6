"""Targets of the loss over what was shown: the events with a slate, and slates of which nothing was taken."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.datasets.prepared.slates import Slates
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ConfigError, DataError
from recsys.jagged import SequenceBatch, flat_ranges
from recsys.training.further_targets import asks_at_moments, placed, predicted_events
from recsys.training.losses import Negatives
from recsys.training.objectives import Task
from recsys.training.shard_plan import Plan

__all__ = ["ShownTargets", "shown_targets"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ShownTargets:
    """Gives a next-item task the slates of its targets.

    Attributes:
        slates: of the log.
        no_click: whether taking nothing is learned.
    """

    slates: Slates
    no_click: bool

    @classmethod
    def of(cls, store: SequenceStore, encoder: SequenceEncoder) -> "ShownTargets":
        """As a training asks for it.

        Raises:
            ConfigError: the log keeps no slates, or the encoder cannot learn from them.
            DataError: no training event that can be predicted has a slate.
        """
        slates = store.slates
        if slates is None:
            raise ConfigError(
                f"training.loss = 'shown': {store.path} keeps nothing of what was shown: prepare the log "
                "with shown_column=, or choose another loss"
            )
        if not encoder.causal:
            raise ConfigError(
                "training.loss = 'shown' goes with the prediction of the next event, and this encoder learns "
                "hidden ones: choose the encoder sasrec or mamba, or another loss"
            )
        if encoder.no_click is not None and not slates.n_passed:
            raise ConfigError(
                f"encoder.no_click = true: {store.path} has no row with a slate and without an item between "
                "two events: train anew with encoder.no_click = false"
            )
        if encoder.no_click is not None and asks_at_moments(encoder):
            raise ConfigError(
                "encoder.no_click = true: a state is asked for once, at the hour and with the request "
                "columns of the event behind it: set encoder.no_click = false, or leave encoder.clock, "
                "encoder.repeat_by and encoder.request_columns out"
            )
        first = np.asarray(store.offsets[:-1]) + 1
        last = np.asarray(store.valid_start)
        predicted = flat_ranges(np.minimum(first, last), last)
        if not np.diff(slates.shown_offsets)[predicted].any():
            raise DataError(f"{store.path}: no training event that can be predicted has a slate")
        return cls(slates, encoder.no_click is not None)

    def line(self) -> str | None:
        """What is left out, for people; None where nothing is."""
        if self.no_click or not self.slates.n_passed:
            return None
        return (
            f"{self.slates.n_passed:,} slates of which nothing was taken are left out: "
            "encoder.no_click = true learns from them"
        )

    def __call__(self, task: Task, batch: SequenceBatch, plan: Plan, step: int) -> tuple[Task, Negatives]:
        """The task with targets that have a slate alone, and their slates.

        A slate that holds nothing but its target says nothing where taking nothing is not learned.

        Args:
            task: next-item task of a batch on the host.
            batch: that it was made of.
            plan: that the batch is of.
            step: likewise.
        """
        predicted = predicted_events(batch, plan, step)
        rows = np.arange(len(predicted)) if task.rows is None else task.rows.numpy()
        targets = task.targets.numpy()
        weights = None if task.weights is None else task.weights.numpy()
        shown, offsets = self.slates.shown, self.slates.shown_offsets
        first, last = offsets[predicted[rows]], offsets[predicted[rows] + 1]
        slate = np.repeat(np.arange(len(rows)), last - first)
        items = np.asarray(shown[flat_ranges(first, last)], dtype=np.int64)
        others = np.bincount(slate[items != targets[slate]], minlength=len(rows)) > 0
        has = (last > first) if self.no_click else others
        rows, targets, first, last = rows[has], targets[has], first[has], last[has]
        weights = None if weights is None else weights[has]
        sizes, items = last - first, np.asarray(shown[flat_ranges(first, last)], dtype=np.int64)
        taken = None
        if self.no_click:
            more, which = placed(self.slates.passed_before, predicted)
            own = self.slates.passed_weights
            counted = None if own is None else own[which]
            if counted is not None:
                more, which, counted = more[counted > 0], which[counted > 0], counted[counted > 0]
            begin, end = self.slates.passed_offsets[which], self.slates.passed_offsets[which + 1]
            taken = torch.from_numpy(np.arange(len(rows) + len(more)) < len(rows))
            if weights is not None or counted is not None:
                weights = np.concatenate(
                    (
                        np.ones(len(rows), np.float32) if weights is None else weights,
                        np.ones(len(more), np.float32) if counted is None else counted,
                    )
                )
            rows = np.concatenate((rows, more))
            targets = np.concatenate((targets, self.slates.passed[begin].astype(np.int64)))
            sizes = np.concatenate((sizes, end - begin))
            items = np.concatenate((items, self.slates.passed[flat_ranges(begin, end)].astype(np.int64)))
        found = replace(
            task,
            rows=torch.from_numpy(rows),
            targets=torch.from_numpy(targets),
            weights=None if weights is None else torch.from_numpy(weights),
        )
        return found, Negatives(torch.from_numpy(_padded(items, sizes, targets)), None, taken)


def shown_targets(store: SequenceStore, encoder: SequenceEncoder, loss: str) -> ShownTargets | None:
    """What gives tasks their slates; None for another loss.

    Raises:
        ConfigError: the log or the encoder does not go with the loss.
        DataError: no training event that can be predicted has a slate.
    """
    if loss == "shown":
        return ShownTargets.of(store, encoder)
    if encoder.no_click is not None:
        raise ConfigError(
            f"encoder.no_click = true is learned by training.loss = 'shown' alone, and the loss is {loss!r}: "
            "set training.loss = 'shown', or train anew with encoder.no_click = false"
        )
    return None


def _padded(items: Ints, sizes: Ints, targets: Ints) -> Ints:
    """(M, K) slates of M sizes that lie one after the other in ``items``, filled up with the targets."""
    width = max(int(sizes.max(initial=0)), 1)
    padded = np.repeat(targets[:, None], width, axis=1)
    padded[np.arange(width) < sizes[:, None]] = items
    return padded
