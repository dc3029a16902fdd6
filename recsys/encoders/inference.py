"""User states of many histories, by a budget of events per batch."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.encoders.base import SequenceEncoder
from recsys.jagged import SequenceBatch, flat_ranges

Array = npt.NDArray[np.int64]


class CodeRows(Protocol):
    """Codes of events by their positions: an array, or what makes its rows."""

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.integer]:
        """(n, E) codes of the events at positions (n,)."""


def encode_histories(
    encoder: SequenceEncoder,
    items: npt.NDArray[np.integer],
    timestamps: npt.NDArray[np.int64] | None,
    starts: Array,
    ends: Array,
    *,
    local_times: npt.NDArray[np.int64] | None = None,
    at: Array | None = None,
    local_at: Array | None = None,
    event_codes: CodeRows | None = None,
    context: npt.NDArray[np.integer] | None = None,
    clock: bool = True,
    batch_events: int = 32_768,
) -> Tensor:
    """The state after each history, of which the most recent ``history_length`` events are read.

    Args:
        encoder: in evaluation mode.
        items: (N,) item indices of all histories, those of later items as `SequenceEncoder.places_of` takes
            them.
        timestamps: (N,) unix seconds, or None.
        starts: (R,) int64, first position of each history.
        ends: (R,) int64, position after its last event; no history is empty.
        local_times: (N,) local seconds, or None; read by a clock.
        at: (R,) unix seconds at which each answer is wanted; None is the last event's time.
        local_at: (R,) local seconds of the same.
        event_codes: (N, E) codes of what came with the events and is known of their users, or None.
        context: (R, C) codes of what is known of each request, or None.
        clock: whether the interest clock adds the hour of the request; False takes an encoder that has one.
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
            local = None if local_times is None else local_times[flat]
            own = encoder.places_of(items[flat])
            codes = None if event_codes is None or not encoder.n_event_codes else event_codes[flat]
            batch = SequenceBatch.from_lengths(
                own, ends[rows] - recent[rows], times, local, event_codes=codes
            )
            packed = batch.to(device)
            known = _moments(context, rows, device) if encoder.n_request_codes else None
            if clock:
                found = encoder.user_state(
                    packed,
                    at=_moments(at, rows, device),
                    local_at=_moments(local_at, rows, device),
                    **({} if known is None else {"context": known}),
                )
            else:
                found = encoder.requested(encoder.remember(packed).hidden, known)
            states[rows] = found.to(states.dtype)
    return states


def _moments(times: npt.NDArray[np.integer] | None, rows: slice, device: torch.device) -> Tensor | None:
    return None if times is None else torch.from_numpy(np.array(times[rows], dtype=np.int64)).to(device)


def _batches(lengths: Array, budget: int) -> Iterator[slice]:
    start = 0
    cumulative = np.concatenate(([0], np.cumsum(lengths)))
    while start < len(lengths):
        stop = int(np.searchsorted(cumulative, cumulative[start] + budget, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop
