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

from recsys.datasets.times.time_zones import check_time_zone, utc_offsets
from recsys.encoders.base import NO_CLOCK_TO_READ, SequenceEncoder
from recsys.encoders.clock import UserMemory
from recsys.errors import ArgumentError

Array = npt.NDArray[np.int64]
History = tuple[Array, Array | None]
"""Items and timestamps (or None) of a user, oldest first."""

BYTES_KEPT = 256 * 2**20


@dataclass(slots=True, eq=False)
class _Kept:
    """A user's streaming state, and what it answers: at any hour, if the encoder has the interest clock."""

    state: Any
    answer: Tensor | UserMemory
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

    def append(
        self, user: Hashable, item: int, timestamp: int | None = None, *, at: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Take one more event of a user.

        Args:
            user: who.
            item: index in the catalog.
            timestamp: unix seconds, for encoders that read the time.
            at: unix seconds at which the state is asked for, read by the interest clock; None is
                `timestamp`.

        Returns:
            (d,) float32, what `user_state` gives for the history with this event.

        Raises:
            ArgumentError: the item is not in the catalog, or `at` is given to an encoder without the
                interest clock.
        """
        self._check(item)
        asked = self._asked(at)
        with self._lock:
            state = self._take(user)
            answer, state = self._step(state, item, timestamp)
            self._put(user, state, answer)
            return self._read(answer, asked)

    def state(self, user: Hashable, *, at: int | None = None) -> npt.NDArray[np.float32] | None:
        """The state after a user's last event, at any hour without encoding anything again.

        Args:
            user: who.
            at: unix seconds at which it is asked for, read by the interest clock; None is the time of the
                last event.

        Returns:
            (d,) float32; None for a user without events.

        Raises:
            ArgumentError: `at` is given to an encoder without the interest clock.
        """
        asked = self._asked(at)
        with self._lock:
            kept = self._kept.get(user)
            if kept is not None:
                self.hits += 1
                self._kept.move_to_end(user)
                return self._read(kept.answer, asked)
            self.misses += 1
            state, answer = self._replay(user)
            if answer is None:
                return None
            self._put(user, state, answer)
            return self._read(answer, asked)

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

    def _replay(self, user: Hashable) -> tuple[Any, Tensor | UserMemory | None]:
        items, times = self._history_of(user)
        recent = slice(max(0, len(items) - self._encoder.history_length), None)
        state, answer = self._encoder.initial_state(1), None
        stamps = [None] * len(items) if times is None else times.tolist()
        for item, time in zip(items[recent].tolist(), stamps[recent], strict=True):
            self._check(item)
            answer, state = self._step(state, item, time)
        return state, answer

    def _step(self, state: Any, item: int, timestamp: int | None) -> tuple[Tensor | UserMemory, Any]:
        device = self._encoder.device
        items = torch.tensor([item], device=device)
        times = None if timestamp is None else torch.tensor([timestamp], device=device)
        step = self._encoder.step if self._encoder.clock is None else self._encoder.step_memory
        with torch.inference_mode():
            return step(state, items, times, local_times=self._local(timestamp))

    def _asked(self, at: int | None) -> Tensor | None:
        """(1,) local seconds of a request."""
        if at is None:
            return None
        if self._encoder.clock is None:
            raise ArgumentError(NO_CLOCK_TO_READ)
        local = self._local(at)
        if local is None:
            raise ArgumentError("at= is read in local time: give UserStates the users' time_zone")
        return local

    def _read(self, answer: Tensor | UserMemory, asked: Tensor | None) -> npt.NDArray[np.float32]:
        if isinstance(answer, Tensor):
            return _array(answer)
        with torch.inference_mode():
            return _array(self._encoder.recall(answer, asked))

    def _local(self, timestamp: int | None) -> Tensor | None:
        if timestamp is None or self._time_zone is None or not self._encoder.needs_local_times:
            return None
        offset = int(utc_offsets(np.array([timestamp], dtype=np.int64), self._time_zone)[0])
        return torch.tensor([timestamp + offset], device=self._encoder.device)

    def _put(self, user: Hashable, state: Any, answer: Tensor | UserMemory) -> None:
        # The clock's sums are one tensor, in the state and in what it answers.
        own = answer.nbytes if isinstance(answer, Tensor) else answer.hidden.nbytes + answer.times.nbytes
        size = state_bytes(state) + own
        self._drop(user)
        self._kept[user] = _Kept(state, answer, size)
        self.bytes += size
        while self.bytes > self._bytes_kept:
            self._drop(next(iter(self._kept)))

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
