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

from recsys.answering.arguments import whole_number
from recsys.answering.search import UserQueries
from recsys.datasets.times.time_zones import check_time_zone, utc_offsets
from recsys.encoders.base import NO_CLOCK_TO_READ, SequenceEncoder
from recsys.encoders.clock import UserMemory
from recsys.encoders.streams import tensors_of
from recsys.errors import ArgumentError

Array = npt.NDArray[np.int64]
History = tuple[Array, Array | None] | tuple[Array, Array | None, Array | None]
"""Items and timestamps (or None) of a user, oldest first; and seconds from UTC to local time at each event,
where they are known."""

BYTES_KEPT = 256 * 2**20


@dataclass(slots=True, eq=False)
class _Kept:
    """A user's streaming state, and what it answers: at any hour, if the encoder has the interest clock.

    Attributes:
        state: from which the next step starts.
        answer: the state that scores, or what the clock reads it from.
        items: (L,) items of the whole history.
        utc_offset: seconds from UTC to local time at the last event, where the history tells them.
        bytes: of all of these.
    """

    state: Any
    answer: Tensor | UserMemory
    items: Array
    utc_offset: int | None = None
    bytes: int = 0


class UserStates:
    """A bounded cache of streaming states, by user.

    The least recently used states go first; a user who comes back is read anew from the history. Safe to
    share by threads: they take turns, since a step uses up the state that it starts from.

    Args:
        encoder: in evaluation mode; its `step` is what makes states.
        history_of: gives a user's events so far, oldest first, *without* the event being appended, as item
            indices and unix seconds.
        bytes_kept: most bytes of states kept.
        time_zone: of what comes in, IANA name or ``+HH:MM``, for encoders with a clock, and of histories that
            come without offsets; None goes on with a history's last offset.

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
        bytes_kept = whole_number(bytes_kept, "bytes_kept", least=0)
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

    def __getstate__(self) -> dict[str, Any]:
        raise ArgumentError("kept states are not pickled: each process keeps its own")

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
        self._check_at(at)
        with self._lock:
            state, items, offset = self._take(user)
            offset = self._offset(timestamp, offset)
            answer, state = self._step(state, item, timestamp, offset)
            kept = _Kept(state, answer, np.append(items, np.int64(item)), offset)
            self._put(user, kept)
            return self._read(kept, at)

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
        found = self.query(user, at=at)
        return None if found is None else found.states[0]

    def query(
        self, user: Hashable, *, at: int | None = None, local_at: int | None = None
    ) -> UserQueries | None:
        """What the catalog is searched by for a user, with what was seen; see `search_users`.

        Args:
            user: who.
            at: unix seconds at which it is asked for, read by the interest clock; None is the time of the
                last event.
            local_at: or local seconds.

        Returns:
            The query of one user; None for a user without events.

        Raises:
            ArgumentError: `at` is given to an encoder without the interest clock.
        """
        self._check_at(at if local_at is None else local_at)
        with self._lock:
            kept = self._kept.get(user)
            if kept is not None:
                self.hits += 1
                self._kept.move_to_end(user)
            else:
                self.misses += 1
                kept = self._replay(user)
                if kept is None:
                    return None
                self._put(user, kept)
            state = self._read(kept, at, local_at)
            offsets = np.array([0, len(kept.items)], dtype=np.int64)
            return UserQueries(state[None], np.array([0, 1], dtype=np.int64), kept.items, offsets)

    def forget(self, user: Hashable) -> None:
        """Drop a user's state, e.g. because the history was changed elsewhere."""
        with self._lock:
            self._drop(user)

    def _take(self, user: Hashable) -> tuple[Any, Array, int | None]:
        """The user's state, items and offset, out of the cache: should the step fail, all are read anew."""
        kept = self._kept.get(user)
        if kept is not None:
            self.hits += 1
            self._drop(user)
        else:
            self.misses += 1
            kept = self._replay(user)
            if kept is None:
                return self._encoder.initial_state(1), np.zeros(0, dtype=np.int64), None
        return kept.state, kept.items, kept.utc_offset

    def _replay(self, user: Hashable) -> _Kept | None:
        """Step through a user's window; None for a user without events."""
        items, times, offsets = (*self._history_of(user), None)[:3]
        if len(items) == 0:
            return None
        recent = slice(max(0, len(items) - self._encoder.history_length), None)
        stamps = [None] * len(items) if times is None else times.tolist()
        local = [None] * len(items) if offsets is None else offsets.tolist()
        state, answer, last = self._encoder.initial_state(1), None, None
        for item, time, offset in zip(items[recent].tolist(), stamps[recent], local[recent], strict=True):
            self._check(item)
            last = self._offset(time, None) if offset is None else offset
            answer, state = self._step(state, item, time, last)
        assert answer is not None
        return _Kept(state, answer, np.asarray(items, dtype=np.int64), last)

    def _step(
        self, state: Any, item: int, timestamp: int | None, utc_offset: int | None
    ) -> tuple[Tensor | UserMemory, Any]:
        device = self._encoder.device
        items = torch.tensor([item], device=device)
        times = None if timestamp is None else torch.tensor([timestamp], device=device)
        local = None
        if self._encoder.needs_local_times and timestamp is not None and utc_offset is not None:
            local = self._moment(timestamp + utc_offset)
        step = self._encoder.step if self._encoder.clock is None else self._encoder.step_memory
        with torch.inference_mode():
            return step(state, items, times, local_times=local)

    def _check_at(self, at: int | None) -> None:
        if at is not None and self._encoder.clock is None:
            raise ArgumentError(NO_CLOCK_TO_READ)

    def _read(self, kept: _Kept, at: int | None, local_at: int | None = None) -> npt.NDArray[np.float32]:
        """The state that scores, at a moment that is given in unix or in local seconds."""
        if isinstance(kept.answer, Tensor):
            return _array(kept.answer)
        if local_at is None and at is not None:
            offset = self._offset(at, kept.utc_offset)
            if offset is None:
                raise ArgumentError("at= is read in local time: give UserStates the users' time_zone")
            local_at = at + offset
        with torch.inference_mode():
            return _array(self._encoder.recall(kept.answer, self._moment(local_at)))

    def _offset(self, timestamp: int | None, otherwise: int | None) -> int | None:
        """Seconds from UTC to local time of the zone, of another one where none was given."""
        if self._time_zone is None or timestamp is None:
            return otherwise
        return int(utc_offsets(np.array([timestamp], dtype=np.int64), self._time_zone)[0])

    def _moment(self, local: int | None) -> Tensor | None:
        return None if local is None else torch.tensor([local], device=self._encoder.device)

    def _put(self, user: Hashable, kept: _Kept) -> None:
        answer = kept.answer
        # The clock's sums are one tensor, in the state and in what it answers.
        own = answer.nbytes if isinstance(answer, Tensor) else answer.hidden.nbytes + answer.times.nbytes
        kept.bytes = state_bytes(kept.state) + own + kept.items.nbytes
        self._drop(user)
        self._kept[user] = kept
        self.bytes += kept.bytes
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
    return sum(tensor.nbytes for tensor in tensors_of(state))


def _array(hidden: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = hidden[0].float().cpu().numpy()
    return array.copy()
