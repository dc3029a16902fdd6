"""User states of histories that lie in a prepared log, and the biases of what their windows hold.

Each is asked at the moment of an event of the log.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.times.local_times import local_times, require_local_times
from recsys.encoders.inference import encode_histories
from recsys.encoders.window_bias import WindowBias
from recsys.jagged import flat_ranges

if TYPE_CHECKING:
    from recsys.encoders.base import SequenceEncoder

Array = npt.NDArray[np.int64]


def log_states(
    encoder: "SequenceEncoder",
    store: SequenceStore,
    starts: Array,
    ends: Array,
    *,
    asked: Array | None = None,
    batch_events: int = 32_768,
) -> Tensor:
    """The state after each history.

    Args:
        encoder: in evaluation mode.
        store: prepared data.
        starts: (R,) int64, first position of each history.
        ends: (R,) int64, position after its last event; no history is empty.
        asked: (R,) int64 position of the event whose time and request columns are the request's; None is the
            time of the history's last, and nothing known of the request. Nothing else of that event is read.
        batch_events: budget of events per forward pass.

    Returns:
        (R, D) on the encoder's device.

    Raises:
        ConfigError: the encoder has a clock and the log has no local hours.
    """
    local = None
    if encoder.needs_local_times:
        require_local_times(store)
        local = local_times(store)
    requests = store.request_inputs
    context = None if asked is None or requests is None else requests[asked]
    at = None if asked is None or store.timestamps is None else np.asarray(store.timestamps[asked])
    return encode_histories(
        encoder,
        store.items,
        store.timestamps,
        starts,
        ends,
        local_times=local,
        at=at,
        local_at=None if asked is None or local is None else local[asked],
        event_codes=store.event_inputs,
        context=context,
        batch_events=batch_events,
    )


def log_windows(
    encoder: "SequenceEncoder", store: SequenceStore, starts: Array, ends: Array, *, asked: Array
) -> WindowBias:
    """What the encoder adds to the scores of items in the windows of histories; it has a repeat bias.

    Args:
        encoder: of the histories.
        store: prepared data.
        starts: (R,) int64, first position of each history.
        ends: (R,) int64, position after its last event.
        asked: (R,) int64 position of the event whose time is the request's; nothing else of it is read.

    Raises:
        ConfigError: the bias reads the clock and the log has no local hours.
    """
    biases, window = encoder.repeat_bias, encoder.history_length
    assert biases is not None
    if not biases.reads_clock:
        return WindowBias(*biases.of_windows(store.items, starts, ends, window))
    require_local_times(store)
    first = np.maximum(starts, ends - window)
    events, bounds = flat_ranges(first, ends), np.concatenate(([0], np.cumsum(ends - first)))
    items, times = np.asarray(store.items[events]), local_times(store, events)
    return WindowBias(
        *biases.of_windows(items, bounds[:-1], bounds[1:], window, times, local_times(store, asked))
    )
