"""User states of many histories, by a budget of events per batch."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.encoders.base import SequenceEncoder
from recsys.jagged import SequenceBatch, flat_ranges

Array = npt.NDArray[np.int64]


def encode_histories(
    encoder: SequenceEncoder,
    items: npt.NDArray[np.integer],
    timestamps: npt.NDArray[np.int64] | None,
    starts: Array,
    ends: Array,
    *,
    batch_events: int = 32_768,
) -> Tensor:
    """The state after each history, of which the most recent ``history_length`` events are read.

    Args:
        encoder: in evaluation mode.
        items: (N,) item indices of all histories.
        timestamps: (N,) unix seconds, or None.
        starts: (R,) int64, first position of each history.
        ends: (R,) int64, position after its last event; no history is empty.
        batch_events: budget of events per forward pass.

    Returns:
        (R, D) on the encoder's device.
    """
    device = encoder.device
    states = torch.empty(len(starts), encoder.config.d_model, device=device)
    recent = np.maximum(starts, ends - encoder.history_length)
    with torch.inference_mode():
        for rows in _batches(ends - recent, batch_events):
            flat = flat_ranges(recent[rows], ends[rows])
            times = None if timestamps is None else timestamps[flat]
            batch = SequenceBatch.from_lengths(items[flat], ends[rows] - recent[rows], times)
            states[rows] = encoder.user_state(batch.to(device)).to(states.dtype)
    return states


def _batches(lengths: Array, budget: int) -> Iterator[slice]:
    start = 0
    cumulative = np.concatenate(([0], np.cumsum(lengths)))
    while start < len(lengths):
        stop = int(np.searchsorted(cumulative, cumulative[start] + budget, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop
