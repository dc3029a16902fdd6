"""Targets that are no events of the windows: each stood, or was shown, before an event of its user.

The state after the event before it is the one that predicts it, so that a state may have several targets. A
state is asked at one moment, that of the event behind it, so an encoder that reads moments or columns of
requests has no further targets.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.unread_events import UnreadEvents
from recsys.encoders.base import SequenceEncoder
from recsys.jagged import SequenceBatch, flat_ranges
from recsys.training.batches import EpochPlan
from recsys.training.objectives import Further
from recsys.training.shard_plan import Plan

__all__ = ["UnreadTargets", "asks_at_moments", "placed", "predicted_events", "unpredicted"]


def asks_at_moments(encoder: SequenceEncoder) -> bool:
    """Whether the state after an event depends on when, or by what request, it is asked for."""
    return encoder.reads_request_time or encoder.request_columns is not None


def predicted_events(batch: SequenceBatch, plan: Plan, step: int) -> NDArray[np.int64]:
    """(M,) int64 position in the log of the event that each input row of a next-item task predicts."""
    assert isinstance(plan, EpochPlan)  # shards keep no further targets
    found: NDArray[np.int64] = plan.places(step)[batch.next_item_rows().numpy() + 1]
    return found


def placed(
    before: NDArray[np.int64], predicted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where further targets belong in a batch.

    Args:
        before: (K,) int64 position of the event behind each, rising.
        predicted: (M,) int64 position of the event that each input row predicts.

    Returns:
        (n,) int64 input row of each that belongs there, and (n,) int64 which of the K it is.
    """
    first, last = (np.searchsorted(before, predicted, side=side) for side in ("left", "right"))
    return np.repeat(np.arange(len(predicted)), last - first), flat_ranges(first, last)


@dataclass(frozen=True, slots=True, eq=False)
class UnreadTargets:
    """Gives a batch the training events that are predicted and not read.

    Attributes:
        events: of the log.
    """

    events: UnreadEvents

    @classmethod
    def of(cls, store: SequenceStore, encoder: SequenceEncoder) -> "UnreadTargets | None":
        """Those of a log; None where it has none, or the encoder cannot be asked for them."""
        if store.unread is None or not encoder.causal or asks_at_moments(encoder):
            return None
        return cls(store.unread)

    def __call__(self, batch: SequenceBatch, plan: Plan, step: int) -> Further:
        """Those of a batch."""
        events = self.events
        rows, which = placed(events.before, predicted_events(batch, plan, step))
        weights = None if events.weights is None else events.weights[which]
        if weights is not None:
            rows, which, weights = rows[weights > 0], which[weights > 0], weights[weights > 0]
        return Further(
            torch.from_numpy(rows),
            torch.from_numpy(events.items[which].astype(np.int64)),
            None if weights is None else torch.from_numpy(weights),
        )


def unpredicted(store: SequenceStore, found: UnreadTargets | None) -> str | None:
    """What is said, for people, where a log has such events and a training does not take them; else None.

    Args:
        store: the log.
        found: those that the training takes.
    """
    if store.unread is None or not len(store.unread.items) or found is not None:
        return None
    return (
        f"{len(store.unread.items):,} events that are not read, as noise, are not predicted either: a state "
        "of this training has one target"
    )
