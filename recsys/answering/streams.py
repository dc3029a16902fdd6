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
        bytes: of all of these.
    """

    state: Any
    answer: Tensor | UserMemory
    items: Array
    utc_offset: int | None = None
    local_times: Array | None = None
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

    def longer(self, history: History, item: int, timestamp: int | None) -> History:
        """A history with one more event."""
        items, times, offsets = (*history, None)[:3]
        if len(items) == 0:
            times, offsets = _NOTHING, None if offsets is None and self._time_zone is None else _NOTHING
        last = None if offsets is None or len(offsets) == 0 else int(offsets[-1])
        offset = self._offset(timestamp, last)
        codes = _codes(history)
        if codes is not None:  # nothing is known of what came with it
            codes = np.concatenate([codes, np.zeros((1, codes.shape[1]), dtype=np.int64)])
        return UserEvents(
            np.append(items, np.int64(item)),
            None if times is None or timestamp is None else np.append(times, np.int64(timestamp)),
            None if offsets is None or offset is None else np.append(offsets, np.int64(offset)),
            codes,
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
        begin = self._encoder.prefill if self._encoder.clock is None else self._encoder.prefill_memory
        with torch.inference_mode():
            answer, state = begin(batch)
        offsets = [None if zone is None else int(zone[-1]) for _, _, zone in known]
        kept = _apart(answer, state, [own for own, _, _ in known], offsets)
        if self._encoder.bias_reads_clock:
            for one, (_, stamps, zones) in zip(kept, known, strict=True):
                one.local_times = None if stamps is None or zones is None else stamps + zones
        return kept

    def _event_codes(self, histories: Sequence[History], items: Sequence[Array]) -> list[Array] | None:
        """Codes of what came with the last events of each history; zeros where nothing is known."""
        width = self._encoder.n_event_codes
        if not width:
            return None
        known = [_codes(history) for history in histories]
        return [
            np.zeros((len(own), width), dtype=np.int64) if codes is None else codes[len(codes) - len(own) :]
            for codes, own in zip(known, items, strict=True)
        ]

    def _local(self, history: History) -> tuple[Array, Array | None, Array | None]:
        """A history's items, unix seconds and offsets from UTC, those of the zone where it comes without."""
        items, times, offsets = (*history, None)[:3]
        if offsets is None and times is not None and self._time_zone is not None:
            offsets = utc_offsets(times, self._time_zone).astype(np.int64)
        return np.asarray(items, dtype=np.int64), times, offsets

    def step(
        self, kept: Sequence[Kept], items: Sequence[int], timestamps: Sequence[int | None]
    ) -> list[Kept]:
        """What is kept of users after one event of each; what was kept before is used up."""
        together = max(1, len(kept)) if self._encoder.prefills else 1
        return [
            own
            for start in range(0, len(kept), together)
            for own in self._stepped(
                *(part[start : start + together] for part in (kept, items, timestamps))  # type: ignore[arg-type]
            )
        ]

    def _stepped(
        self, kept: Sequence[Kept], items: Sequence[int], timestamps: Sequence[int | None]
    ) -> list[Kept]:
        """The same, of users together."""
        offsets = [self._offset(t, own.utc_offset) for t, own in zip(timestamps, kept, strict=True)]
        stamps = [t for t in timestamps if t is not None]
        local = [t + z for t, z in zip(timestamps, offsets, strict=True) if t is not None and z is not None]
        step = self._encoder.step if self._encoder.clock is None else self._encoder.step_memory
        with torch.inference_mode():
            answer, state = step(
                join_states([own.state for own in kept]),
                self._tensor(self._encoder.places_of(np.asarray(items, dtype=np.int64)).tolist()),
                self._tensor(stamps) if len(stamps) == len(kept) else None,
                local_times=self._tensor(local)
                if self._encoder.needs_local_times and len(local) == len(kept)
                else None,
            )
        longer = [np.append(own.items, np.int64(item)) for own, item in zip(kept, items, strict=True)]
        stepped = _apart(answer, state, longer, offsets)
        if self._encoder.bias_reads_clock and len(local) == len(kept):
            for own, before, now in zip(stepped, kept, local, strict=True):
                times = before.local_times
                own.local_times = None if times is None else np.append(times, np.int64(now))
        return stepped

    def read(self, kept: Sequence[Kept], at: Sequence[int | None], local_at: Sequence[int | None]) -> States:
        """(n, d) the states that score, at moments that are given in unix or in local seconds."""
        if not kept:
            return np.zeros((0, self._encoder.config.d_model), dtype=np.float32)
        memories = [own.answer for own in kept if isinstance(own.answer, UserMemory)]
        if not memories:
            return _array(torch.cat([own.answer for own in kept if isinstance(own.answer, Tensor)]))
        moments = [self._moment_of(*own) for own in zip(kept, memories, at, local_at, strict=True)]
        with torch.inference_mode():
            return _array(self._encoder.recall(join_states(memories), torch.cat(moments)))

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


def state_bytes(state: Any) -> int:
    """Bytes of the tensors in a streaming state: a tensor, or a dataclass, list or mapping of such."""
    return sum(tensor.nbytes for tensor in tensors_of(state))


def _apart(
    answer: Tensor | UserMemory, state: Any, items: Sequence[Array], offsets: Sequence[int | None]
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
    parts = zip(states, answers, items, offsets, strict=True)
    return [Kept(state, own, rows, offset) for state, own, rows, offset in parts]


def _array(hidden: Tensor) -> States:
    array: States = hidden.float().cpu().numpy()
    return array.copy()
