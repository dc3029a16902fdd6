"""What is kept of users between their events, and made of many users together: by one encoding, by steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.answering.user_events import UserEvents
from recsys.datasets.times.time_zones import check_time_zone, utc_offsets
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.clock import UserMemory
from recsys.encoders.streams import join_states, split_states, tensors_of
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch

Array = npt.NDArray[np.int64]
States = npt.NDArray[np.float32]
History = tuple[Array, Array | None] | tuple[Array, Array | None, Array | None] | UserEvents
"""Items and timestamps (or None) of a user, oldest first; and seconds from UTC to local time at each event,
where they are known; and codes of what came with each, likewise."""

USERS_PER_BATCH = 64
"""Users whose windows are encoded at once."""
_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(slots=True, eq=False)
class Kept:
    """A user's streaming state, and what it answers: at any hour, if the encoder has the interest clock.

    Attributes:
        state: from which the next step starts.
        answer: the state that scores, or what the clock reads it from.
        items: (L,) items of the whole history.
        utc_offset: seconds from UTC to local time at the last event, where the history tells them.
        local_times: (L,) local seconds of its events, kept for a repeat bias that reads the clock.
        users: (C,) codes of what is known of the user, where the history tells them.
        bytes: of all of these.
    """

    state: Any
    answer: Tensor | UserMemory
    items: Array
    utc_offset: int | None = None
    local_times: Array | None = None
    users: Array | None = None
    bytes: int = 0


class Streams:
    """Makes what is kept of users, and reads it.

    Args:
        encoder: in evaluation mode.
        time_zone: as of `UserStates`.

    Raises:
        ArgumentError: an unknown zone.
    """

    def __init__(self, encoder: SequenceEncoder, time_zone: str | None) -> None:
        self._encoder = encoder
        self._time_zone = None if time_zone is None else check_time_zone(time_zone)

    def asked(self, kept: Kept, at: int | None, local_at: int | None) -> Array | None:
        """(1,) local seconds at which a user's window is weighed; None where nothing reads them.

        Raises:
            ArgumentError: `at` is given and no time zone is known.
        """
        if kept.local_times is None:
            return None
        if local_at is None:
            local_at = int(kept.local_times[-1]) if at is None else self._local_moment(kept, at)
        return np.array([local_at], dtype=np.int64)

    def longer(
        self, history: History, item: int, timestamp: int | None, codes: Array | None = None
    ) -> History:
        """A history with one more event, and (E,) codes of what came with it where that is known."""
        items, times, offsets = (*history, None)[:3]
        if len(items) == 0:
            times, offsets = _NOTHING, None if offsets is None and self._time_zone is None else _NOTHING
        last = None if offsets is None or len(offsets) == 0 else int(offsets[-1])
        offset = self._offset(timestamp, last)
        before = _codes(history)
        after = None
        if before is not None:
            newest = np.zeros(before.shape[1], dtype=np.int64) if codes is None else codes
            after = np.concatenate([before, newest[None]])
        return UserEvents(
            np.append(items, np.int64(item)),
            None if times is None or timestamp is None else np.append(times, np.int64(timestamp)),
            None if offsets is None or offset is None else np.append(offsets, np.int64(offset)),
            after,
            _users(history),
        )

    def begin(self, histories: Sequence[History]) -> list[Kept | None]:
        """What is kept of users after their histories; None where there are no events."""
        found: list[Kept | None] = [None] * len(histories)
        filled = [place for place, history in enumerate(histories) if len(history[0])]
        together = USERS_PER_BATCH if self._encoder.prefills else 1
        for start in range(0, len(filled), together):
            places = filled[start : start + together]
            for place, own in zip(places, self._encoded([histories[p] for p in places]), strict=True):
                found[place] = own
        return found

    def _encoded(self, histories: Sequence[History]) -> list[Kept]:
        """The same of users who all have events, together."""
        window = self._encoder.history_length
        known = [self._local(history) for history in histories]
        items = [own[-window:] for own, _, _ in known]
        times = [own[-window:] for _, own, _ in known if own is not None]
        local = [
            own[-window:] + zone[-window:] for _, own, zone in known if own is not None and zone is not None
        ]
        for own in items:
            self.check(int(own.min()))
            self.check(int(own.max()))
        batch = SequenceBatch.from_sequences(
            [self._encoder.places_of(own) for own in items],
            times if len(times) == len(items) else None,
            local if self._encoder.needs_local_times and len(local) == len(items) else None,
            event_codes=self._event_codes(histories, items),
        ).to(self._encoder.device)
        users = [_users(history) for history in histories]
        answer: Tensor | UserMemory
        with torch.inference_mode():
            if self._encoder.clock is None:
                answer, state = self._encoder.prefill(batch, context=self._contexts(users))
            else:
                answer, state = self._encoder.prefill_memory(batch)
        offsets = [None if zone is None else int(zone[-1]) for _, _, zone in known]
        kept = _apart(answer, state, [own for own, _, _ in known], offsets, users)
        if self._encoder.bias_reads_clock:
            for one, (_, stamps, zones) in zip(kept, known, strict=True):
                one.local_times = None if stamps is None or zones is None else stamps + zones
        return kept

    def _event_codes(self, histories: Sequence[History], items: Sequence[Array]) -> list[Array] | None:
        """Codes of the last events of each history and of their user; zeros where nothing is known."""
        width = self._encoder.n_event_codes
        if not width:
            return None
        of_events = width - self._encoder.n_user_codes
        found = []
        for history, own in zip(histories, items, strict=True):
            codes = np.zeros((len(own), width), dtype=np.int64)
            known, users = _codes(history), _users(history)
            if known is not None:
                codes[:, :of_events] = known[len(known) - len(own) :]
            if users is not None:
                codes[:, of_events:] = users
            found.append(codes)
        return found

    def _contexts(
        self, users: Sequence[Array | None], context: Sequence[Array | None] | None = None
    ) -> Tensor | None:
        """Codes of requests, those of users alone where a request says nothing; None where none is read."""
        width, n_users = self._encoder.n_request_codes, self._encoder.n_user_codes
        if not width:
            return None
        codes = np.zeros((len(users), width), dtype=np.int64)
        for row, own in enumerate(users):
            asked = None if context is None else context[row]
            if asked is not None:
                codes[row] = asked
            elif own is not None and n_users:
                codes[row, -n_users:] = own
        return torch.from_numpy(codes).to(self._encoder.device)

    def _local(self, history: History) -> tuple[Array, Array | None, Array | None]:
        """A history's items, unix seconds and offsets from UTC, those of the zone where it comes without."""
        items, times, offsets = (*history, None)[:3]
        if offsets is None and times is not None and self._time_zone is not None:
            offsets = utc_offsets(times, self._time_zone).astype(np.int64)
        return np.asarray(items, dtype=np.int64), times, offsets

    def step(
        self,
        kept: Sequence[Kept],
        items: Sequence[int],
        timestamps: Sequence[int | None],
        codes: Sequence[Array | None],
    ) -> list[Kept]:
        """What is kept of users after one event of each; what was kept before is used up.

        Args:
            kept: of n users.
            items: index in the catalog, one each.
            timestamps: unix seconds, one each.
            codes: (E,) codes of what came with each, or None.
        """
        together = max(1, len(kept)) if self._encoder.prefills else 1
        return [
            own
            for start in range(0, len(kept), together)
            for own in self._stepped(
                *(part[start : start + together] for part in (kept, items, timestamps, codes))  # type: ignore[arg-type]
            )
        ]

    def _stepped(
        self,
        kept: Sequence[Kept],
        items: Sequence[int],
        timestamps: Sequence[int | None],
        codes: Sequence[Array | None],
    ) -> list[Kept]:
        """The same, of users together."""
        offsets = [self._offset(t, own.utc_offset) for t, own in zip(timestamps, kept, strict=True)]
        stamps = [t for t in timestamps if t is not None]
        local = [t + z for t, z in zip(timestamps, offsets, strict=True) if t is not None and z is not None]
        users = [own.users for own in kept]
        state = join_states([own.state for own in kept])
        rows = self._tensor(self._encoder.places_of(np.asarray(items, dtype=np.int64)).tolist())
        times = self._tensor(stamps) if len(stamps) == len(kept) else None
        timed = self._encoder.needs_local_times and len(local) == len(kept)
        known = {
            "local_times": self._tensor(local) if timed else None,
            "columns": self._columns(codes, users),
        }
        answer: Tensor | UserMemory
        with torch.inference_mode():
            if self._encoder.clock is None:
                told = self._contexts(users)
                answer, state = self._encoder.step(state, rows, times, **known, context=told)
            else:
                answer, state = self._encoder.step_memory(state, rows, times, **known)
        longer = [np.append(own.items, np.int64(item)) for own, item in zip(kept, items, strict=True)]
        stepped = _apart(answer, state, longer, offsets, users)
        if self._encoder.bias_reads_clock and len(local) == len(kept):
            for own, before, now in zip(stepped, kept, local, strict=True):
                seen = before.local_times
                own.local_times = None if seen is None else np.append(seen, np.int64(now))
        return stepped

    def _columns(self, codes: Sequence[Array | None], users: Sequence[Array | None]) -> Tensor | None:
        """(n, E + C) codes of one event of each of n users; None where none is read."""
        width = self._encoder.n_event_codes
        if not width:
            return None
        of_events = width - self._encoder.n_user_codes
        found = np.zeros((len(codes), width), dtype=np.int64)
        for row, (own, user) in enumerate(zip(codes, users, strict=True)):
            if own is not None:
                found[row, :of_events] = own
            if user is not None:
                found[row, of_events:] = user
        return torch.from_numpy(found).to(self._encoder.device)

    def read(
        self,
        kept: Sequence[Kept],
        at: Sequence[int | None],
        local_at: Sequence[int | None],
        context: Sequence[Array | None] | None = None,
    ) -> States:
        """(n, d) the states that score.

        Args:
            kept: of n users.
            at: unix seconds, one each, or
            local_at: local seconds at which they are asked for, read by the interest clock.
            context: (R + C,) codes of what is known of each request; None of one where that is what is known
                of its user.
        """
        if not kept:
            return np.zeros((0, self._encoder.config.d_model), dtype=np.float32)
        users = [own.users for own in kept]
        known = self._contexts(users, context)
        memories = [own.answer for own in kept if isinstance(own.answer, UserMemory)]
        with torch.inference_mode():
            if memories:
                moments = [self._moment_of(*own) for own in zip(kept, memories, at, local_at, strict=True)]
                return _array(self._encoder.recall(join_states(memories), torch.cat(moments), known))
            states = torch.cat([own.answer for own in kept if isinstance(own.answer, Tensor)])
            if known is not None and context is not None and any(own is not None for own in context):
                # What is kept was asked by what is known of the users alone.
                nothing = torch.zeros_like(states)
                asked = self._encoder.requested(nothing, known)
                states = states + (asked - self._encoder.requested(nothing, self._contexts(users)))
            return _array(states)

    def _moment_of(self, kept: Kept, memory: UserMemory, at: int | None, local_at: int | None) -> Tensor:
        """(1,) local seconds at which a user's state is asked for."""
        if local_at is None and at is not None:
            local_at = self._local_moment(kept, at)
        return memory.times if local_at is None else self._tensor([local_at])

    def _local_moment(self, kept: Kept, at: int) -> int:
        """Unix seconds in a user's local time."""
        offset = self._offset(at, kept.utc_offset)
        if offset is None:
            raise ArgumentError("at= is read in local time: give UserStates the users' time_zone")
        return at + offset

    def _offset(self, timestamp: int | None, otherwise: int | None) -> int | None:
        """Seconds from UTC to local time of the zone, of another one where none was given."""
        if self._time_zone is None or timestamp is None:
            return otherwise
        return int(utc_offsets(np.array([timestamp], dtype=np.int64), self._time_zone)[0])

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._encoder.device)

    def check(self, item: int) -> None:
        """Refuse an item that is not in the catalog."""
        known = self._encoder.n_items + self._encoder.n_later_items
        if not 0 <= item < known:
            raise ArgumentError(f"item {item} lies outside [0, {known}): the encoder has no vector")


def _codes(history: History) -> Array | None:
    """Codes of what came with a history's events, where they are known."""
    return history.codes if isinstance(history, UserEvents) else None


def _users(history: History) -> Array | None:
    """Codes of what is known of a history's user, where they are known."""
    return history.users if isinstance(history, UserEvents) else None


def state_bytes(state: Any) -> int:
    """Bytes of the tensors in a streaming state: a tensor, or a dataclass, list or mapping of such."""
    return sum(tensor.nbytes for tensor in tensors_of(state))


def _apart(
    answer: Tensor | UserMemory,
    state: Any,
    items: Sequence[Array],
    offsets: Sequence[int | None],
    users: Sequence[Array | None],
) -> list[Kept]:
    """What is kept of each of several users."""
    n = len(items)
    states = split_states(state, n)
    if isinstance(answer, Tensor):
        answers: list[Any] = split_states(answer, n)
    else:
        # The clock's sums are one tensor, in the state and in what it answers.
        hidden, times = split_states(answer.hidden, n), split_states(answer.times, n)
        answers = [UserMemory(h, own.sums, t) for h, own, t in zip(hidden, states, times, strict=True)]
    parts = zip(states, answers, items, offsets, users, strict=True)
    return [Kept(state, own, rows, offset, users=known) for state, own, rows, offset, known in parts]


def _array(hidden: Tensor) -> States:
    array: States = hidden.float().cpu().numpy()
    return array.copy()
