"""The requests of the study: events of the test part, each asked at its own time with all before it known.

The engine's own protocol asks each user once, at the first event after the cut. A clock is about the hour of
the request, so here a user is asked at several of the test events, drawn once for all runs.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.times.local_times import local_times, require_local_times
from recsys.encoders.base import SequenceEncoder
from recsys.evaluation.log_states import log_states, log_windows
from recsys.evaluation.window_bias import ranks_with_bias
from recsys.kernels.ranking import rank_of_target

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
K = 10


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """R requests of a log's users.

    Attributes:
        user: (R,) int64, non-decreasing.
        start: (R,) int64 position of the user's first event.
        position: (R,) int64 position of the event that is to be found; events before it are the history.
        item: (R,) int64 its item.
        hour: (R,) int64 its local hour.
        repeated: (R,) bool, whether the history holds the item.
    """

    user: Ints
    start: Ints
    position: Ints
    item: Ints
    hour: Ints
    repeated: npt.NDArray[np.bool_]

    @property
    def digest(self) -> str:
        """Says whether two runs were asked the same."""
        return hashlib.sha256(self.position.tobytes()).hexdigest()[:16]


def draw_requests(store: SequenceStore, per_user: int) -> Requests:
    """Take at most `per_user` test events of each user that has a history, at random by a fixed seed.

    Raises:
        ConfigError: the log has no local hours.
    """
    require_local_times(store)
    local = local_times(store)
    assert local is not None
    offsets, first = np.asarray(store.offsets, dtype=np.int64), np.asarray(store.test_start, dtype=np.int64)
    rng = np.random.default_rng(0)
    users, positions = [], []
    for user in range(store.n_users):
        there = np.arange(max(first[user], offsets[user] + 1), offsets[user + 1])
        taken = np.sort(rng.permutation(there)[:per_user])
        positions.append(taken)
        users.append(np.full(len(taken), user))
    whose, position = np.concatenate(users).astype(np.int64), np.concatenate(positions).astype(np.int64)
    items = np.asarray(store.items, dtype=np.int64)
    repeated = np.array(
        [items[p] in items[offsets[u] : p] for u, p in zip(whose, position, strict=True)], dtype=np.bool_
    )
    hour = np.asarray(local[position]) // 3600 % 24
    return Requests(whose, offsets[whose], position, items[position], hour, repeated)


def rank_requests(encoder: SequenceEncoder, store: SequenceStore, requests: Requests) -> Ints:
    """(R,) rank of every wanted item among all items, those of the history included; ties count against."""
    encoder.eval()
    states = log_states(encoder, store, requests.start, requests.position, asked=requests.position)
    weight = encoder.item_vectors()
    with torch.inference_mode():
        if encoder.repeat_bias is None:
            found = rank_of_target(states.to(weight.dtype), weight, torch.from_numpy(requests.item))
            return np.asarray(found.kept.numpy(), dtype=np.int64)
        window = log_windows(encoder, store, requests.start, requests.position, asked=requests.position)
        nothing = np.zeros(0, dtype=np.int64), np.zeros(len(requests.item) + 1, dtype=np.int64)
        kept, _ = ranks_with_bias(
            states.to(weight.dtype), weight, requests.item, nothing, window, "pessimistic"
        )
        return np.asarray(kept, dtype=np.int64)


def gains(ranks: Ints) -> Floats:
    """NDCG@10 of each request: 1 / log2(rank + 1) within the first ten places, else 0."""
    found: Floats = np.where(ranks <= K, 1.0 / np.log2(ranks + 1.0), 0.0)
    return found


def by_user(values: Floats, requests: Requests) -> Floats:
    """(U,) mean of each asked user's requests, so that every user counts the same."""
    _, place = np.unique(requests.user, return_inverse=True)
    found: Floats = np.bincount(place, values) / np.bincount(place)
    return found
