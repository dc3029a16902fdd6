"""The memory of an encoder: one pass over the training sequences, every state with the item that followed."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.times.local_times import local_times
from recsys.decoding.latent import Datastore, reservoir
from recsys.encoders.base import SequenceEncoder
from recsys.evaluation.log_states import log_states
from recsys.jagged import SequenceBatch, flat_ranges

Array = npt.NDArray[np.int64]

PREFIX_CAP = 32
"""Most states per item of an encoder that is not causal: each costs the encoding of a whole history."""


def collect_datastore(
    encoder: SequenceEncoder,
    store: SequenceStore,
    *,
    cap: int | None = None,
    seed: int = 0,
    batch_events: int = 32_768,
    progress: Callable[[int, int], None] | None = None,
) -> Datastore:
    """Encode the training sequences and keep their states.

    Causal encoders give the states of a whole sequence at once. A sequence longer than the encoder's window
    is read in windows that overlap by half, of which the later half is kept, so that no state has seen less
    than half a window where more was there. Other encoders encode each chosen prefix.

    Args:
        encoder: in evaluation mode.
        store: its data; validation and test events are not read.
        cap: most states of an item, drawn by `reservoir`; None keeps all, or 32 if the encoder is not causal.
        seed: of the draw.
        batch_events: budget of events per forward pass.
        progress: told the events done and to be done.

    Returns:
        The memory, on the CPU.
    """
    if cap is None and not encoder.causal:
        cap = PREFIX_CAP
    first = np.asarray(store.offsets[:-1], dtype=np.int64)
    last = np.maximum(np.asarray(store.valid_start, dtype=np.int64), first)
    # Places of the targets: every training event but a user's first, and but those that are context alone.
    places = flat_ranges(np.minimum(first + 1, last), last)
    users = np.repeat(np.arange(len(first)), last - np.minimum(first + 1, last))
    if store.event_targets is not None:
        predicted = store.event_targets[places]
        places, users = places[predicted], users[predicted]
    kept = reservoir(store.items[places], cap, np.random.default_rng(seed))
    places, users = places[kept], users[kept]
    items = store.items[places].astype(np.int64)
    if encoder.causal:
        states = _causal_states(encoder, store, first, last, places, batch_events, progress)
    else:
        states = _prefix_states(encoder, store, first[users], places, batch_events, progress)
    return Datastore(states, items, store.n_items)


def _causal_states(
    encoder: SequenceEncoder,
    store: SequenceStore,
    first: Array,
    last: Array,
    places: Array,
    batch_events: int,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    device = encoder.device
    states = torch.empty(len(places), encoder.config.d_model)
    if len(places) == 0:
        return states
    starts, ends, fresh = _windows(first, last - 1, encoder.history_length)
    done, total = 0, int((ends - starts).sum())
    with torch.inference_mode():
        for rows in _batches(ends - starts, batch_events):
            flat = flat_ranges(starts[rows], ends[rows])
            times = None if store.timestamps is None else store.timestamps[flat]
            own = local_times(store, flat)
            # A window ends before its user's last training event.
            codes, requests = store.event_inputs, store.request_inputs
            batch = SequenceBatch.from_lengths(
                store.items[flat],
                ends[rows] - starts[rows],
                times,
                own,
                event_codes=None if codes is None else codes[flat],
                request_codes=None if requests is None else requests[flat + 1],
            )
            asked = local_times(store, flat + 1)
            if asked is not None:
                batch = replace(batch, query_times=torch.from_numpy(asked))
            hidden = encoder(batch.to(device)).float().cpu()
            # Row r of the batch is the state after event flat[r]; its target lies one place further.
            target = flat + 1
            new = flat >= np.repeat(fresh[rows], ends[rows] - starts[rows])
            slot = np.searchsorted(places, target)
            wanted = new & (places[np.minimum(slot, len(places) - 1)] == target)
            states[torch.from_numpy(slot[wanted])] = hidden[torch.from_numpy(np.flatnonzero(wanted))]
            done += len(flat)
            if progress is not None:
                progress(done, total)
    return states


def _windows(first: Array, last: Array, size: int) -> tuple[Array, Array, Array]:
    """Windows over each range [first, last), and the place in each from which its states are new."""
    lengths = np.maximum(last - first, 0)
    step = max(1, size // 2)
    count = np.where(lengths > 0, 1 + -(-np.maximum(lengths - size, 0) // step), 0)
    user = np.repeat(np.arange(len(first)), count)
    index = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    starts = first[user] + index * step
    ends = np.minimum(starts + size, last[user])
    fresh = np.where(index == 0, starts, starts + size - step)
    return starts, ends, fresh


def _prefix_states(
    encoder: SequenceEncoder,
    store: SequenceStore,
    first: Array,
    places: Array,
    batch_events: int,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    states = torch.empty(len(places), encoder.config.d_model)
    lengths = np.minimum(places - first, encoder.history_length)
    done, total = 0, int(lengths.sum())
    for rows in _batches(lengths, 8 * batch_events):
        states[rows] = log_states(
            encoder, store, first[rows], places[rows], asked=places[rows], batch_events=batch_events
        ).cpu()
        done += int(lengths[rows].sum())
        if progress is not None:
            progress(done, total)
    return states


def _batches(lengths: Array, budget: int) -> Iterator[slice]:
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + budget, side="right")))
        yield slice(start, stop)
        start = stop
