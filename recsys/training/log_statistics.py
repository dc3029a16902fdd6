"""The statistics of a log by which a preset's settings are chosen."""

import numpy as np

from recsys.datasets.prepared.sharded_store import ShardedStore
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.times.local_times import has_local_hours
from recsys.encoders.suited import LogStatistics

SAMPLE = 500_000
"""Most training events that are searched for repeats: those of the first users, and of one more."""


def log_statistics(store: SequenceStore) -> LogStatistics:
    """Count a store's training events; of a store of shards, repeats in the first one with events.

    Args:
        store: prepared data.
    """
    counts = store.item_counts()
    users = store.n_users - store.untrained_users
    return LogStatistics(
        users=users,
        items=int(np.count_nonzero(counts)),
        events=int(counts.sum()),
        repeats=_repeats(_a_part(store)),
        zoned=has_local_hours(store),
    )


def _a_part(store: SequenceStore) -> SequenceStore:
    if not isinstance(store, ShardedStore):
        return store
    parts = (store.shard(number) for number in range(store.n_shards))
    return next((part for part in parts if part.item_counts().any()), store.shard(0))


def _repeats(store: SequenceStore) -> float:
    """Share of training events whose item the user had before, to four decimals."""
    begin = np.asarray(store.offsets[:-1], dtype=np.int64)
    lengths = np.asarray(store.valid_start, dtype=np.int64) - begin
    users = int(np.searchsorted(np.cumsum(lengths), SAMPLE, side="right")) + 1
    begin, lengths = begin[:users], lengths[:users]
    events = int(lengths.sum())
    if not events:
        return 0.0
    before = np.cumsum(lengths) - lengths
    places = np.arange(events) + np.repeat(begin - before, lengths)
    user = np.repeat(np.arange(len(lengths)), lengths)
    pairs = user * store.n_items + store.items[places]
    return round(1 - len(np.unique(pairs)) / events, 4)
