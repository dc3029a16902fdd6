"""States of users between requests: one more event costs one step, not the encoding of the whole history."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.datasets.time_zones import check_time_zone, utc_offsets
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError

Array = npt.NDArray[np.int64]
History = tuple[Array, Array | None]
"""Items and timestamps (or None) of a user, oldest first."""

BYTES_KEPT = 256 * 2**20


@dataclass(slots=True, eq=False)
class _Kept:
    """A user's streaming state, and what it answers."""

    state: Any
    hidden: Tensor
    bytes: int


class UserStates:
    """A bounded cache of streaming states, by user.

    The least recently used states go first; a user who comes back is read anew from the history. Safe to
    share by threads: they take turns, since a step uses up the state that it starts from.

    Args:
        encoder: in evaluation mode; its `step` is what makes states.
        history_of: gives a user's events so far, oldest first, *without* the event being appended.
        bytes_kept: most bytes of states kept.
        time_zone: of the users, IANA name or ``+HH:MM``, for encoders with a clock.

    Raises:
        ArgumentError: bytes_kept < 0.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        history_of: Callable[[Hashable], History],
        *,
        bytes_kept: int = BYTES_KEPT,
        time_zone: str | None = None,
    ) -> None:
        if bytes_kept < 0:
            raise ArgumentError(f"bytes_kept = {bytes_kept} must be at least 0")
        self._encoder = encoder
        self._time_zone = None if time_zone is None else check_time_zone(time_zone)
        self._history_of = history_of
        self._bytes_kept = bytes_kept
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0
        """Bytes of the states that are kept."""
        self.hits = 0
        """Calls that found the user's state."""
        self.misses = 0
        """Calls that read the user's history."""

    def __len__(self) -> int:
        return len(self._kept)

    def append(self, user: Hashable, item: int, timestamp: int | None = None) -> npt.NDArray[np.float32]:
        """Take one more event of a user.

        Args:
            user: who.
            item: index in the catalog.
            timestamp: unix seconds, for encoders that read the time.

        Returns:
            (d,) float32, what `user_state` gives for the history with this event.

        Raises:
            ArgumentError: the item is not in the catalog.
        """
        self._check(item)
        with self._lock:
            state = self._take(user)
            hidden, state = self._step(state, item, timestamp)
            return self._put(user, state, hidden)

    def state(self, user: Hashable) -> npt.NDArray[np.float32] | None:
        """(d,) float32 state after a user's last event; None for a user without events."""
        with self._lock:
            kept = self._kept.get(user)
            if kept is not None:
                self.hits += 1
                self._kept.move_to_end(user)
                return _array(kept.hidden)
            self.misses += 1
            state, hidden = self._replay(user)
            return None if hidden is None else self._put(user, state, hidden)

    def forget(self, user: Hashable) -> None:
        """Drop a user's state, e.g. because the history was changed elsewhere."""
        with self._lock:
            self._drop(user)

    def _take(self, user: Hashable) -> Any:
        """The user's state, out of the cache: should the step fail, the history is read anew next time."""
        kept = self._kept.get(user)
        if kept is not None:
            self.hits += 1
            self._drop(user)
            return kept.state
        self.misses += 1
        return self._replay(user)[0]

    def _replay(self, user: Hashable) -> tuple[Any, Tensor | None]:
        items, times = self._history_of(user)
        recent = slice(max(0, len(items) - self._encoder.history_length), None)
        state, hidden = self._encoder.initial_state(1), None
        stamps = [None] * len(items) if times is None else times.tolist()
        for item, time in zip(items[recent].tolist(), stamps[recent], strict=True):
            self._check(item)
            hidden, state = self._step(state, item, time)
        return state, hidden

    def _step(self, state: Any, item: int, timestamp: int | None) -> tuple[Tensor, Any]:
        device = self._encoder.device
        times = None if timestamp is None else torch.tensor([timestamp], device=device)
        with torch.inference_mode():
            return self._encoder.step(
                state, torch.tensor([item], device=device), times, local_times=self._local(timestamp)
            )

    def _local(self, timestamp: int | None) -> Tensor | None:
        if timestamp is None or self._time_zone is None or not self._encoder.needs_local_times:
            return None
        offset = int(utc_offsets(np.array([timestamp], dtype=np.int64), self._time_zone)[0])
        return torch.tensor([timestamp + offset], device=self._encoder.device)

    def _put(self, user: Hashable, state: Any, hidden: Tensor) -> npt.NDArray[np.float32]:
        size = state_bytes(state) + hidden.nbytes
        self._drop(user)
        self._kept[user] = _Kept(state, hidden, size)
        self.bytes += size
        while self.bytes > self._bytes_kept:
            self._drop(next(iter(self._kept)))
        return _array(hidden)

    def _drop(self, user: Hashable) -> None:
        kept = self._kept.pop(user, None)
        if kept is not None:
            self.bytes -= kept.bytes

    def _check(self, item: int) -> None:
        if not 0 <= item < self._encoder.n_items:
            raise ArgumentError(
                f"item {item} lies outside [0, {self._encoder.n_items}): the encoder has no vector"
            )


def state_bytes(state: Any) -> int:
    """Bytes of the tensors in a streaming state: a tensor, or a dataclass, list or mapping of such."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(state_bytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(state_bytes, state))
    names = getattr(type(state), "__dataclass_fields__", ())
    return sum(state_bytes(getattr(state, name)) for name in names)


def _array(hidden: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = hidden[0].float().cpu().numpy()
    return array.copy()
