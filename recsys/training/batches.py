"""Training batches: windows of users' training events, packed by a budget of events.

A batch is addressed by (seed, epoch, step) and depends on nothing else, so a resumed run sees the
batches that the interrupted one would have seen.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.times.local_times import local_times
from recsys.jagged import SequenceBatch, flat_ranges

Array = npt.NDArray[np.int64]


def target_counts(store: SequenceStore, *, lead: int = 0) -> Array:
    """(V,) int64 training events of each item that count as targets: as often as batches have it as one.

    Args:
        store: prepared data.
        lead: events of each user that are left out, its first ones; of a log that weighs its events alone.
    """
    if store.event_weights is None and store.event_targets is None:
        return store.item_counts()
    last = np.asarray(store.valid_start, dtype=np.int64)
    rows = flat_ranges(np.minimum(np.asarray(store.offsets[:-1], dtype=np.int64) + lead, last), last)
    weights = _weights(store, rows)
    assert weights is not None
    counted: Array = np.bincount(store.items[rows[weights > 0]], minlength=store.n_items)
    return counted


@dataclass(frozen=True, slots=True, eq=False)
class EpochPlan:
    """All batches of one epoch.

    Attributes:
        starts, ends: (W,) int64 absolute positions of the windows, in the order they are visited.
        steps: (S+1,) int64; step s takes windows ``steps[s]:steps[s+1]``.
    """

    starts: Array
    ends: Array
    steps: Array

    @property
    def n_steps(self) -> int:
        """S, optimization steps of the epoch."""
        return len(self.steps) - 1

    @property
    def n_events(self) -> int:
        """Events in all windows."""
        return int((self.ends - self.starts).sum())

    @property
    def n_windows(self) -> int:
        """W, windows of all steps."""
        return len(self.starts)

    @property
    def longest_window(self) -> int:
        """Most events of a window; 0 where there is none."""
        return int((self.ends - self.starts).max(initial=0))

    def step_events(self, step: int) -> int:
        """Events in the windows of one step."""
        chosen = slice(int(self.steps[step]), int(self.steps[step + 1]))
        return int((self.ends[chosen] - self.starts[chosen]).sum())

    def places(self, step: int) -> Array:
        """(N,) int64 positions in the log of the events of one step, in the order of its batch."""
        chosen = slice(int(self.steps[step]), int(self.steps[step + 1]))
        return flat_ranges(self.starts[chosen], self.ends[chosen])

    def batch(self, store: SequenceStore, step: int) -> SequenceBatch:
        """The packed windows of one step."""
        chosen = slice(int(self.steps[step]), int(self.steps[step + 1]))
        starts, ends = self.starts[chosen], self.ends[chosen]
        rows = self.places(step)
        times = None if store.timestamps is None else store.timestamps[rows]
        local = local_times(store, rows)
        codes, requests = store.event_inputs, store.request_inputs
        return SequenceBatch.from_lengths(
            store.items[rows],
            ends - starts,
            times,
            local,
            event_codes=None if codes is None else codes[rows],
            request_codes=None if requests is None else requests[rows],
            weights=_weights(store, rows),
        )


def _weights(store: SequenceStore, rows: Array) -> npt.NDArray[np.float32] | None:
    """(n,) float32 how much predicting some events counts, 0 for context; None where all count alike."""
    weights, targets = store.event_weights, store.event_targets
    if targets is None:
        return None if weights is None else np.asarray(weights[rows])
    counts = targets[rows].astype(np.float32)
    return counts if weights is None else counts * weights[rows]


def plan_epoch(
    store: SequenceStore, *, max_length: int, causal: bool, batch_events: int, seed: int, epoch: int
) -> EpochPlan:
    """Cut every user's training events into windows and group them in random order.

    A sequence longer than ``max_length`` is cut at a phase drawn anew each epoch. For causal encoders
    neighbouring windows share one event, so that every event but a user's first is predicted exactly
    once per epoch; for Cloze each event lies in exactly one window.

    Args:
        store: prepared data; only training events are touched.
        max_length: most events that the encoder takes at once.
        causal: whether a window carries one more event, its first being input only.
        batch_events: budget of events per step; a single longer window makes a step of its own.
        seed: of the run.
        epoch: counted from 0.
    """
    return plan_windows(
        store,
        np.random.default_rng([seed, epoch]),
        max_length=max_length,
        causal=causal,
        batch_events=batch_events,
    )


def plan_windows(
    store: SequenceStore, rng: np.random.Generator, *, max_length: int, causal: bool, batch_events: int
) -> EpochPlan:
    """Cut and group the windows of a store as `plan_epoch` does, by a generator of the caller's."""
    lead = 1 if causal else 0
    first = np.asarray(store.offsets[:-1], dtype=np.int64) + lead
    last = np.asarray(store.valid_start, dtype=np.int64)
    starts, ends = _cut(first, last, max_length, rng)
    starts = starts - lead

    order = rng.permutation(len(starts))
    starts, ends = starts[order], ends[order]
    return EpochPlan(starts, ends, _group(ends - starts, batch_events))


def _cut(first: Array, last: Array, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Cut each range [first, last) into pieces of ``size``, the first of which may be shorter."""
    lengths = np.maximum(last - first, 0)
    # The head of a long sequence is `phase` events, 1..size; the rest are whole pieces but the last.
    phase = rng.integers(1, size + 1, len(lengths))
    head = np.where(lengths > size, phase, lengths)
    pieces = np.where(lengths > 0, 1 + -(-(lengths - head) // size), 0)
    user = np.repeat(np.arange(len(lengths)), pieces)
    index = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = np.where(index == 0, first[user], first[user] + head[user] + (index - 1) * size)
    ends = np.where(index == 0, first[user] + head[user], np.minimum(starts + size, last[user]))
    return starts, ends


def _group(lengths: Array, budget: int) -> Array:
    """Boundaries of consecutive groups of at most ``budget`` events, at least one window each."""
    cumulative = np.concatenate(([0], np.cumsum(lengths)))
    steps = [0]
    while steps[-1] < len(lengths):
        fits = int(np.searchsorted(cumulative, cumulative[steps[-1]] + budget, side="right")) - 1
        steps.append(max(fits, steps[-1] + 1))
    return np.asarray(steps, dtype=np.int64)
